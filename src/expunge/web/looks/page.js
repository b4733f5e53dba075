document.documentElement.lang = "en";
function expungeSlide(dial) {
  const over = dial.closest(".x-slider").querySelector(".x-over");
  over.style.clipPath = "inset(0 " + (100 - dial.value) + "% 0 0)";
}
function expungeFilm(dial) {
  const film = dial.closest(".x-film"), step = JSON.parse(film.dataset.steps)[dial.value];
  for (const picture of film.querySelectorAll("img[data-i]"))
    picture.src = film.dataset.home + String(step).padStart(6, "0") + "-" + picture.dataset.i + ".png";
  for (const text of film.querySelectorAll(".x-at"))
    text.textContent = "the same seeds after " + step + " steps";
}
