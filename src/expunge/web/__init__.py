"""The page in the browser that `expunge serve` shows, and what stands before it."""
