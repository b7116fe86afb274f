"use strict";
// Tables sort by a click or a key on a column's head; published rows stay at the end.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return rising ? order : -order;
    });
    body.append(...rows);
  });
}

// The viewer: two pictures over each other, the right one from the seam on.
for (const viewer of document.querySelectorAll(".viewer")) {
  const cases = JSON.parse(viewer.querySelector("script").textContent);
  const [which, left, right] = viewer.querySelectorAll("select");
  const [under, over] = viewer.querySelectorAll(".stage img");
  const range = viewer.querySelector("input");
  const seam = viewer.querySelector(".seam");
  const stage = viewer.querySelector(".stage");
  const thumbs = viewer.querySelectorAll(".thumbs button");

  const move = () => {
    over.style.clipPath = `inset(0 0 0 ${range.value}%)`;
    seam.style.left = `${range.value}%`;
    range.setAttribute("aria-valuetext", `${range.value} % ${left.value}`);
  };
  const place = (image, label, entry) => {
    image.src = entry.pictures[label];
    image.alt = `${entry.name}, ${label}`;
    image.classList.toggle("lr", label === "LR");
  };
  const show = () => {
    const entry = cases[which.selectedIndex];
    stage.style.aspectRatio = `${entry.width} / ${entry.height}`;
    place(under, left.value, entry);
    place(over, right.value, entry);
    for (const thumb of thumbs) {
      const shown = Number(thumb.dataset.place) === which.selectedIndex;
      thumb.setAttribute("aria-pressed", shown && thumb.dataset.method === right.value);
    }
    move();
  };
  const drag = (event) => {
    if (event.buttons !== 1) return;
    const box = stage.getBoundingClientRect();
    range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    move();
  };
  for (const select of [which, left, right]) select.addEventListener("change", show);
  for (const thumb of thumbs) {
    thumb.firstChild.src = cases[thumb.dataset.place].pictures[thumb.dataset.method];
    thumb.addEventListener("click", () => {
      which.selectedIndex = Number(thumb.dataset.place);
      right.value = thumb.dataset.method;
      show();
      stage.scrollIntoView({ block: "nearest" });
    });
  }
  range.addEventListener("input", move);
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("pointermove", drag);
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  show();
}
