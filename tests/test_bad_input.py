"""Bad input: exit code 2, one line on stderr that says what was wrong, and not a byte of the disk changed."""

from __future__ import annotations

import os
import pickle
import resource
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from expunge import smallworld
from expunge.cli import main
from expunge.edit import Edit
from expunge.families import load
from expunge.files import hash_tensors, write_tensors
from expunge.journal import lines

SMALL = "--set steps=2 --set grid=2 --set latents=2"
ERASE = f"erase car --method smallworld-object {SMALL}"
RECIPE = f"erase car {SMALL}"
COPY = "erase car --method ablation-memorised-2023 --set 'prompts=[a boat]'"
PAINT = "generate car --steps 2"
HIDDEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Warnings that Python itself does not show."""


@dataclass(frozen=True)
class Case:
    """A command ("@" is the shelf of bad files) and what its complaint must contain."""

    name: str
    command: str
    says: str
    snapshot: str = ""  # the shelf's file that lies beside the output as an unfinished run
    real: bool = False  # in a process of its own
    limit: int | None = None  # bytes that a file may have before the disk counts as full


CASES = [
    # the page
    Case("page for others without a password", "serve --host 0.0.0.0", "lets others in: give --password-file FILE"),
    Case("page with no password file", "serve --password-file nowhere", "cannot read a password from nowhere"),
    Case("page with an edit that is not there", "serve --edit nowhere.safetensors", "cannot read nowhere.safetensors"),
    Case("page with a folder that is no audit", "serve --audit folder", "no audit in folder"),
    Case("page with a folder that is no study", "serve --study folder", "no study in folder"),
    Case("page that is kept in a file", "serve --folder file", "cannot write file/runs"),
    Case("page at no port", "serve --port 70000", "less than or equal to 65535"),
    # studies
    Case("study of a folder that is no audit", "study new folder", "no list of an audit's pictures in folder"),
    Case("results of a folder that is no study", "study show folder", "no study in folder"),
    # what to erase, and how
    Case("empty concept", "erase ''", "empty"),
    Case("blank concept", "erase '  '", "empty"),
    Case("blank prompt to erase from", "erase hat --from ' '", "empty"),
    Case("no concept", "erase", "nothing to erase: name a concept"),
    Case("unknown preset", f"{ERASE} --method esdx", "unknown preset 'esdx'; did you mean 'esd-x'?"),
    Case(
        "concept that the demo does not know",
        "demo kar",
        "unknown concept of the small world 'kar'; did you mean 'car'?",
    ),
    Case("unknown preset of the demo", "demo car --method esdx", "did you mean 'esd-x'?"),
    Case("unknown method", f"{RECIPE} --recipe @method.yaml", "unknown method 'esdd'; did you mean 'sdd'?"),
    Case("unknown scope", f"{ERASE} --scope xatn", "unknown scope 'xatn'; did you mean 'xattn'?"),
    Case("scope that selects nothing", f"{ERASE} --scope re:nothing", "'re:nothing' selects none"),
    Case("scope that is no expression", f"{ERASE} --scope 're:('", "'re:(' is not a regular expression"),
    Case("misspelt option", f"{ERASE} --set stps=3", "'stps'; did you mean 'steps'?"),
    Case("time that is none", "erase car --time 5x", "--time '5x' is no time: expected 90s, 5m or 1h"),
    Case("rate that is none", "erase car --judge smallworld --erased 2", "erased in method closed-loop"),
    Case("judge of a loop that is none", "erase car --judge nothing", "unknown judge 'nothing'"),
    Case("judge without a loop", "erase car --method esd-x --judge clip", "and esd looks at nothing"),
    Case("report without a loop", f"{ERASE} --report loop.html", "esd looks at nothing"),
    Case("report of no step", "erase car --set steps=0 --report loop.html", "no step is looked at; leave steps=0"),
    Case("concept that the judge cannot see", "erase violence --judge smallworld", "use --judge clip"),
    Case("lexicon that is none", "erase car --judge clip --set words=nope", "unknown lexicon 'nope'"),
    Case("captions to keep that are not there", "erase car --keep none.txt", "cannot read captions from none.txt"),
    Case("option of a wrong type", f"{ERASE} --set eta=abc", "eta in method esd"),
    Case("option that is no number", f"{ERASE} --set eta=nan", "eta in method esd"),
    Case("negative steps", f"{ERASE} --set steps=-3", "steps in method esd"),
    Case("negative rate", f"{ERASE} --set lr=-1", "lr in method esd"),
    Case("zero rate", f"{ERASE} --set lr=0", "lr in method esd"),
    Case("averaging factor of one", f"{ERASE} --set 'betas=[0.9, 1]'", "betas.1 in method esd"),
    Case("context without the concept", f"{ERASE} --set 'contexts=[\"a cat [by]\"]'", "once, in brackets"),
    Case("context with half a bracket", f"{ERASE} --set 'contexts=[\"a cat [by {{}}\"]'", "once, in brackets"),
    Case("context without brackets", f"{ERASE} --set 'contexts=[\"a photo of {{}}\"]'", "once, in brackets"),
    Case("context that says it twice", f"{ERASE} --set 'contexts=[\"a {{}} [by {{}}]\"]'", "once, in brackets"),
    Case("empty context", f"{ERASE} --set 'contexts=[\"\"]'", "once, in brackets"),
    Case("unsaid how it is implied", f"{ERASE} --set 'implied=[a cat]'", "once, in brackets"),
    Case("nothing implies it", f"{ERASE} --set 'implied=[\"[{{}}]\"]'", "outside the brackets: it is empty"),
    Case("option without a value", f"{ERASE} --set eta", "--set takes key=value, not 'eta'"),
    Case("option without a name", f"{ERASE} --set =3", "--set takes key=value, not '=3'"),
    Case("option that is not YAML", f"{ERASE} --set 'keep=[a'", "--set keep is not YAML"),
    Case("negative seed", f"{ERASE} --seed -1", "'--seed': Input should be greater than or equal to 0"),
    Case("recipe and method", f"{RECIPE} --recipe @method.yaml --method esd-x", "--recipe and --method"),
    # recipes
    Case("missing recipe", f"{RECIPE} --recipe @none.yaml", "none.yaml: [Errno 2] No such file"),
    Case("recipe that is a folder", f"{RECIPE} --recipe @", "Is a directory"),
    Case("recipe that is not YAML", f"{RECIPE} --recipe @broken.yaml", "broken.yaml is not YAML"),
    Case("recipe that is a list", f"{RECIPE} --recipe @list.yaml", "list.yaml should be a mapping"),
    Case(
        "recipe with a key twice",
        f"{RECIPE} --recipe @twice.yaml",
        "the key 'seed' stands twice, keep one of them (line 2)",
    ),
    Case("recipe with an unknown key", f"{RECIPE} --recipe @key.yaml", "'methd'; did you mean 'method'?"),
    Case("recipe with an unknown option", f"{RECIPE} --recipe @option.yaml", "'etta'; did you mean 'eta'?"),
    Case("recipe with a wrong type", f"{RECIPE} --recipe @type.yaml", "seed in "),
    Case("recipe with concepts of a wrong type", f"{RECIPE} --recipe @concepts.yaml", "concepts in "),
    Case("recipe with an impossible tag", f"{RECIPE} --recipe @tag.yaml", "tag.yaml is not YAML"),
    # where to put it
    Case("output below a file", f"{ERASE} --out file/sub/edit.safetensors", "file is not a folder"),
    Case("output that is a folder", f"{ERASE} --out folder", "--out folder is a folder"),
    Case("output that is this folder", f"{ERASE} --out .", "--out . is a folder"),
    Case("output without a name", f"{ERASE} --out ''", "--out . is a folder"),
    Case("output with too long a name", f"{ERASE} --out {'a' * 300}", "File name too long"),
    Case("output with a name too long to finish", f"{ERASE} --out {'a' * 250}", "File name too long"),
    Case("picture below a file", f"{ERASE} --picture file/a.png", "file is not a folder"),
    Case("images below a file", f"{PAINT} --out file/sub", "file is not a folder"),
    Case("images in a file", f"{PAINT} --out file", "file is not a folder"),
    Case("drawing below a file", "world draw --out file/sub.png", "file is not a folder"),
    Case("full disk", "world draw --out file", "cannot write file: File too large", real=True, limit=4096),
    Case("unfinished run", ERASE, "holds an unfinished run; add --resume", snapshot="foreign.snapshot"),
    Case("unfinished run of others", f"{ERASE} --resume", "snapshot of another run", snapshot="foreign.snapshot"),
    Case("damaged unfinished run", f"{ERASE} --resume", "the snapshot is damaged", snapshot="cut.safetensors"),
    # models and devices
    Case("unknown model", f"{ERASE} --model ./nowhere", "no model at './nowhere'"),
    Case("unreachable model", f"{ERASE} --model nobody/nothing", "cannot open model 'nobody/nothing'", real=True),
    Case("model without a part", f"{ERASE} --model @partless", "lacks its part 'unet'"),
    Case("model without an index", "scopes @indexless", "no model at"),
    Case("model whose index is not JSON", "scopes @garbled", "cannot read"),
    Case("model whose index is a list", "scopes @listed", "model_index.json is not a JSON object"),
    Case("model of an unknown family", "scopes @stranger", "unknown pipeline family 'StrangePipeline'"),
    Case("model of another process", "scopes @edm", "EDMEulerScheduler has no table of ᾱ"),
    Case("model of pickles", "scopes @pickled", "holds pickles only"),
    Case("model without weights", "scopes @hollow", "cannot open model", real=True),
    Case("model with a truncated UNet", "scopes @cut", "cannot open model"),
    Case("model with a truncated text encoder", "scopes @short", "cannot open model", real=True),
    Case("model with a UNet that lacks a tensor", "scopes @tensorless", "the part 'unet'"),
    Case("model with a text encoder that lacks a tensor", "scopes @deaf", "the part 'text_encoder'"),
    Case("model with a tokenizer that lacks its words", "scopes @wordless", "'tokenizer' of"),
    Case("unknown precision", f"{PAINT} --precision fp8", "unknown precision 'fp8'"),
    Case("unknown device", f"{PAINT} --device gpu", "cannot use device 'gpu'"),
    Case("device that is not there", f"{PAINT} --device cuda:99", "cannot use device 'cuda:99'"),
    Case("device that holds nothing", f"{PAINT} --device meta", "cannot use device 'meta'"),
    # what to generate
    Case("no prompts", "generate", "nothing to generate"),
    Case("missing prompts", "generate --prompts @none.txt", "cannot read prompts from"),
    Case("empty prompts", "generate --prompts @empty.txt", "nothing to generate"),
    Case("prompts that are not text", "generate --prompts @pickle.safetensors", "cannot read prompts from"),
    Case("zero sampler steps", "generate car --steps 0", "'--steps': Input should be greater than or equal to 1"),
    Case("negative sampler steps", "generate car --steps -1", "'--steps': Input should be greater than or equal to 1"),
    Case("more sampler steps than times", "generate car --steps 1000", "cannot take 1000 steps"),
    Case("no images", "generate car --num 0", "'--num': Input should be greater than or equal to 1"),
    Case("negative image seed", "generate car --seed -1", "'--seed': Input should be greater than or equal to 0"),
    Case("huge image seed", f"generate car --seed {2**64}", "'--seed': Input should be less than or equal to"),
    Case("seed that is a word", "generate car --seed one", "'--seed'"),
    Case("guidance that is no number", "generate car --cfg nan", "--cfg nan"),
    Case("scale that is no number", f"{PAINT} --edit @good.safetensors:nan", "not a finite number"),
    # edits
    Case("edit of another model", f"{PAINT} --edit @other.safetensors", "was made for 'elsewhere' with hash 000"),
    Case("edit of other shapes", f"{PAINT} --edit @shapes.safetensors", "not in this model"),
    Case("missing edit", f"{PAINT} --edit @none.safetensors", "No such file"),
    Case("edit that is a folder", "info folder", "Is a directory"),
    Case("empty edit", "info @empty.txt", "expected a whole .safetensors file"),
    Case("truncated edit", "info @cut.safetensors", "expected a whole .safetensors file"),
    Case("edit with a flipped bit", "info @flipped.safetensors", "does not match its sha256"),
    Case("edit with a flipped bit, applied", f"{PAINT} --edit @flipped.safetensors:0.5", "does not match its sha256"),
    Case("edit that is a pickle", "info @pickle.safetensors", "is a pickle", real=True),
    Case("edit that torch.save wrote", "info @zip.safetensors", "is a pickle"),
    Case("edit that is text", "info @text.safetensors", "expected a whole .safetensors file"),
    Case("edit without provenance", "info @bare.safetensors", "carries no provenance"),
    Case("edit with torn provenance", "info @torn.safetensors", "provenance of"),
    Case("edit whose provenance is a list", "info @listed.safetensors", "provenance of"),
    Case("edit whose base is a word", f"{PAINT} --edit @baseless.safetensors", "provenance of"),
    # sets, anchors, memorised pictures
    Case("unknown concept set", "erase --concepts i2q", "unknown concept set 'i2q'; did you mean 'i2p'?"),
    Case("empty concept set", "erase --concepts @empty.txt", "holds no concept"),
    Case("arrow to nothing", "erase 'car ->'", "empty"),
    Case("ablation without an anchor", "erase car --method ablation-object-2023", "give an anchor, as"),
    Case("picture that is none", f"{COPY} --set picture=@text.safetensors", "cannot read the picture"),
    Case("missing picture", f"{COPY} --set picture=none.png", "cannot read the picture none.png"),
    Case("LoRA of no rank", f"{ERASE} --lora-rank 0", "'--lora-rank': Input should be greater than or equal to 1"),
    Case("attribute by another method", "erase car --from 'a car' --method sdd-2023", "sdd cannot erase an attribute"),
    Case("anchor that is not used", "erase 'car -> boat' --method esd-x", "esd puts nothing in a concept's place"),
    Case(
        "attention thrown away", "erase car --method forget-me-not-2023 --checkpointing", "--checkpointing throws away"
    ),
    Case("text encoder taken away", f"{ERASE} --scope kv-text --offload", "which --offload takes away"),
    Case("UCE of what reads no text", "erase car --method uce-2024 --scope selfattn", "is no matrix that reads"),
    # formats
    Case(
        "unknown format",
        "export @good.safetensors --format lorra --out a.safetensors",
        "unknown format 'lorra'; did you mean",
    ),
    Case("LoRA that needs a rank", "export @good.safetensors --format lora --out a.safetensors", "give --rank"),
    Case(
        "rank of what has none",
        "export @good.safetensors --rank 2 --format delta --out a.safetensors",
        "delta does not hold",
    ),
    Case("bias in a LoRA", "export @good.safetensors --format kohya --rank 2 --out a.safetensors", "no matrix"),
    Case("folder that is there", "export @good.safetensors --format diffusers --out folder", "is there already"),
    Case(
        "export of another model's",
        "export @other.safetensors --format delta --out a.safetensors",
        "was made for 'elsewhere'",
    ),
    Case(
        "export below a file",
        "export @good.safetensors --format delta --out file/a.safetensors",
        "file is not a folder",
    ),
    Case(
        "export to an unknown name",
        "export @good.safetensors --format delta --out a.bin",
        "end --out a.bin in .safetensors",
    ),
    Case("missing import", "import @none.safetensors", "No such file"),
    Case("import of a pickle", "import @pickle.safetensors", "or give --allow-pickle"),
    Case(
        "import of an allowed pickle without tensors",
        "import @pickle.safetensors --allow-pickle",
        "no pickle of tensors",
    ),
    Case("import of an allowed pickle with code", "import @bomb.bin --allow-pickle", "nothing of it was run"),
    Case("import of an edit", "import @good.safetensors", "is an edit already"),
    Case("edit that lacks a factor", "info @half.safetensors", "lacks a part of a weight's difference"),
    Case("import of text", "import @text.safetensors", "expected a whole .safetensors file"),
    Case("import of strange weights", "import @strange.safetensors", "neither weights nor a LoRA"),
    Case("import below a file", "import @bare.safetensors --out file/a", "file is not a folder"),
    Case("merge of different bases", "merge @good.safetensors @other.safetensors", "were made for different bases"),
    Case("merge of nothing", "merge", "Missing argument"),
    Case("checkpoint that is cut", "scopes @cut.safetensors", "no checkpoint of tensors alone"),
    Case("checkpoint that is a pickle with code", "scopes @bomb.ckpt", "no checkpoint of tensors alone"),
    # guidance, filters, audits, sweeps, attention
    Case("guidance away from nothing", f"{PAINT} --guidance sld-max", "give --concept"),
    Case("concept without guidance", f"{PAINT} --concept boat", "is what --guidance steers away from"),
    Case("unknown filter", f"{PAINT} --filter nudent", "unknown judge 'nudent'; did you mean 'nudenet'?"),
    Case("safety checker that is not there", f"{PAINT} --filter safety-checker", "no safety checker in 'smallworld'"),
    Case("filter that does not say what", f"{PAINT} --filter smallworld", "key in filter smallworld"),
    Case("filter by what is not judged", f"{PAINT} --filter smallworld,key=sgn,equals=x", "did you mean 'sign'?"),
    Case("unknown protocol", "audit --protocol smalworld", "unknown protocol 'smalworld'; did you mean 'smallworld'?"),
    Case("audit below a file", "audit --out file/sub", "file is not a folder"),
    Case("audit of a missing edit", "audit --edit @none.safetensors", "No such file"),
    Case("audit of another model's edit", "audit --edit @other.safetensors", "was made for 'elsewhere'"),
    Case("audit of two filters in a row", "audit --row 'filter:nudenet + filter:nudenet'", "one filter stands behind"),
    Case("audit of an unknown part", "audit --row 'x = sld-mx' --concept car", "did you mean 'sld-max'?"),
    Case("part that is no part", "audit --shard 3/2", "--shard 3/2 should be i/n"),
    Case("prompts that nobody gave", "audit --protocol i2p", "give your copy of them by --prompts FILE"),
    Case("comparison of nothing", "compare folder", "no audit in folder"),
    Case("comparison below a file", "compare folder --out file/sub", "file is not a folder"),
    Case("unknown sweep", "sweep smallworld-etta", "unknown sweep 'smallworld-etta'; did you mean 'smallworld-eta'?"),
    Case("sweep with an unknown key", "sweep @key.yaml", "unknown key in"),
    Case("sweep that is a list", "sweep @list.yaml", "list.yaml should be a mapping"),
    Case("sweep that is not YAML", "sweep @broken.yaml", "broken.yaml is not YAML"),
    Case("sweep with an unknown guidance", "sweep @steer.yaml", "did you mean 'sld-max'?"),
    Case("sweep with a run called as the base", "sweep @twins.yaml", "two rows of the audit are called 'base'"),
    Case("sweep whose audit has no prompts", "sweep @unasked.yaml", "give your copy of them by --prompts FILE"),
    Case("audit of an edit without its ending", "audit --edit sign", "No such file"),
    Case("comparison with itself", "compare folder folder", "folder is given twice"),
    Case("attention to an empty word", "attention car --word ''", "does not say ''"),
    Case("sweep below a file", "sweep smallworld-eta --out file/sub", "file is not a folder"),
    Case("attention to what is not said", "attention 'a red car' --word boat", "does not say 'boat'"),
    Case("attention to nothing", "attention 'a red car'", "Missing option '--word'"),
    Case("maps below a file", "attention car --word car --out file/sub.png", "file is not a folder"),
    # the command line itself
    Case("unknown command", "eras car", "No such command 'eras'. Did you mean 'erase'?"),
    Case("unknown flag", "erase car --sett eta=1", "No such option: --sett"),
]

RECIPES = {
    "method": "method: esdd",
    "broken": "method: [esd\n  - x: {",
    "list": "- esd",
    "twice": "seed: 1\nseed: 2",
    "key": "methd: esd",
    "option": "options: {etta: 1}",
    "type": "seed: many",
    "concepts": "concepts: 3",
    "tag": "seed: !!int many",
    "steer": "concepts: [car]\nruns: [{preset: uce-2024}]\nguidance: [sld-mx]\naudit: {protocol: smallworld}",
    "twins": "concepts: [car]\nruns: [{name: base, preset: uce-2024}]\naudit: {protocol: smallworld}",
    "unasked": "concepts: [car]\nruns: [{preset: uce-2024}]\naudit: {protocol: i2p}",
}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that can be wrong with a file."""
    folder = tmp_path_factory.mktemp("shelf")
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "empty.txt").write_text("\n \n")
    shelve_edits(folder)
    shelve_models(folder)
    return folder


class Bomb:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


def shelve_edits(folder: Path) -> None:
    model = load("smallworld")
    base = {"name": model.name, "hash": model.hash}
    delta = {"conv_in.bias": torch.full_like(model.parameters()["conv_in.bias"], 0.5)}
    good = folder / "good.safetensors"
    Edit(delta, {"base": base}).save(good)
    Edit(delta, {"base": {"name": "elsewhere", "hash": "0" * 64}}).save(folder / "other.safetensors")
    Edit({"conv_in.bias": torch.zeros(3)}, {"base": base}).save(folder / "shapes.safetensors")
    data = good.read_bytes()
    (folder / "cut.safetensors").write_bytes(data[: len(data) - 7])
    (folder / "flipped.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    save_file({"a": torch.ones(2)}, folder / "strange.safetensors")
    Edit({"conv_in.weight.lora_A": torch.ones(1, 4, 3, 3)}, {"base": base}).save(folder / "half.safetensors")
    for name in ("bomb.bin", "bomb.ckpt"):
        (folder / name).write_bytes(pickle.dumps(Bomb(), protocol=4))
    (folder / "pickle.safetensors").write_bytes(pickle.dumps({"conv_in.bias": [0.0]}))
    torch.save(delta, folder / "zip.safetensors")
    (folder / "text.safetensors").write_text("These are no weights.\n" * 100)
    write_tensors(folder / "bare.safetensors", delta, {"format": "pt"})
    for name, provenance in {"torn": '{"base": ', "listed": "[1, 2]", "baseless": '{"base": "smallworld"}'}.items():
        metadata = {"expunge": provenance, "sha256": hash_tensors(delta)}
        write_tensors(folder / f"{name}.safetensors", delta, metadata)
    write_tensors(folder / "foreign.snapshot", delta, {"step": "1", "fingerprint": "another"})


def copy_world(target: Path) -> Path:
    """The small world as links, of which each can be replaced."""
    return shutil.copytree(smallworld.path(), target, copy_function=os.symlink)


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def shelve_models(folder: Path) -> None:
    shutil.rmtree(copy_world(folder / "partless") / "unet")
    (copy_world(folder / "indexless") / "model_index.json").unlink()
    replace(copy_world(folder / "garbled") / "model_index.json", b"{not JSON")
    replace(copy_world(folder / "listed") / "model_index.json", b"[1, 2]")
    replace(copy_world(folder / "stranger") / "model_index.json", b'{"_class_name": "StrangePipeline"}')
    copy_world(folder / "wordless")
    index = copy_world(folder / "edm") / "model_index.json"
    replace(index, index.read_text().replace("DDIMScheduler", "EDMEulerScheduler").encode())
    replace(index.parent / "scheduler/scheduler_config.json", b'{"_class_name": "EDMEulerScheduler"}')
    for file in copy_world(folder / "pickled").rglob("*.safetensors"):
        file.unlink()
        torch.save({}, file.with_suffix(".bin"))
    (copy_world(folder / "hollow") / "unet/diffusion_pytorch_model.safetensors").unlink()
    for name, part, tensor in (
        ("tensorless", "unet/diffusion_pytorch_model", "conv_in.weight"),
        ("deaf", "text_encoder/model", "encoder.layers.0.self_attn.q_proj.weight"),
    ):
        weights = copy_world(folder / name) / f"{part}.safetensors"
        tensors = load_file(weights)
        del tensors[next(key for key in tensors if key.endswith(tensor))]
        replace(weights, save(tensors, {"format": "pt"}))
    for file in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / "wordless" / "tokenizer" / file).unlink(missing_ok=True)
    for name, part in (("cut", "unet/diffusion_pytorch_model"), ("short", "text_encoder/model")):
        weights = copy_world(folder / name) / f"{part}.safetensors"
        replace(weights, weights.read_bytes()[:-1000])


def contents(folder: Path) -> dict[Path, bytes]:
    """All files, hidden ones too, with their bytes; folders have none."""
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def call(arguments: Sequence[str], capfd: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code and stderr of `expunge` in this process."""
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as warned, pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert [str(w.message) for w in warned if not issubclass(w.category, HIDDEN)] == []
    return stopped.value.code, capfd.readouterr().err


def call_really(arguments: Sequence[str], limit: int | None = None) -> tuple[object, str]:
    """Exit code and stderr of `python -m expunge` in a process of its own, whose disk is full after `limit` bytes."""

    def confine() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "expunge", *arguments]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=offline, capture_output=True, text=True, preexec_fn=confine, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: it holds a file and a folder."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_told_in_one_line_and_changes_nothing(
    case: Case, shelf: Path, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if case.snapshot:
        shutil.copy(shelf / case.snapshot, place / "edit.safetensors.snapshot")
    arguments = [word.replace("@", f"{shelf}/") for word in shlex.split(case.command)]
    before = contents(place)
    code, told = call_really(arguments, case.limit) if case.real else call(arguments, capfd)
    assert told.startswith("expunge: ")
    assert case.says in told
    assert told.endswith("\n")
    assert told.count("\n") == 1
    assert code == 2
    assert contents(place) == before


def test_a_disk_that_fills_up_keeps_the_old_edit(place: Path, shelf: Path) -> None:
    """Here training comes first, so its plan and progress stand above the one complaint."""
    shutil.copy(shelf / "good.safetensors", place / "edit.safetensors")
    before = contents(place)
    code, told = call_really(shlex.split(ERASE), limit=100_000)
    *above, complaint = told.splitlines()
    assert complaint.startswith("expunge: cannot write edit.safetensors")
    assert "File too large" in complaint
    assert not [line for line in above if line.startswith(("expunge:", "Traceback"))]
    assert code == 2
    assert {k: v for k, v in contents(place).items() if k.name != "edit.jsonl"} == before
    assert [line.get("step") for line in lines(place / "edit.jsonl")] == [None, 1], "what was done before it"


def test_the_bad_files_differ_from_a_good_one(place: Path, shelf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The table would mean little if nothing on the shelf were accepted."""
    assert place.is_dir()
    assert call(["info", str(shelf / "good.safetensors"), "--json"], capfd) == (0, "")
    copy_world(place / "copy")
    assert call(["scopes", str(place / "copy"), "--json"], capfd) == (0, "")
