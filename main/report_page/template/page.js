// Sorts a table by the column whose heading is pressed; empty cells stay last.
const key = (row, column) => {
  const cell = row.cells[column];
  if (column === 0) return cell.textContent;
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "string" ? a.localeCompare(b) : a - b;
      return ascending ? order : -order;
    });
    body.append(...rows.map(([, row]) => row));
  }));
}
// Legends: pressed names bring their lines out of the panels below.
for (const legend of document.querySelectorAll(".legend")) {
  const panels = legend.nextElementSibling;
  for (const button of legend.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", pressed);
      for (const line of panels.querySelectorAll(`.line[data-row="${button.dataset.row}"]`)) {
        line.classList.toggle("shown", pressed);
      }
      panels.classList.toggle("chosen", panels.querySelector(".line.shown") !== null);
    });
  }
}
const box = document.getElementById("intervals");
box.addEventListener("change", () => document.body.classList.toggle("no-intervals", !box.checked));
// A press on a point or a picture opens its image under all maps, drawn here from the image and grey maps.
const dialog = document.querySelector("dialog");
const load = (source) => new Promise((done) => {
  const image = new Image();
  image.onload = () => done(image);
  image.src = source;
});
const pixelsOf = (image, width, height) => {
  const canvas = document.createElement("canvas");
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  return [canvas, context, context.getImageData(0, 0, width, height)];
};
const drawn = (image, map, label, colour) => {
  const [canvas, context, pixels] = pixelsOf(image, image.naturalWidth, image.naturalHeight);
  const values = pixelsOf(map, canvas.width, canvas.height)[2].data, data = pixels.data;
  for (let i = 0; i < data.length; i += 4) {
    for (let c = 0; c < 3; c++) data[i + c] = colour(data[i + c], values[i], c);
  }
  context.putImageData(pixels, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
};
const over = (pixel, value, c) => {
  const opacity = alpha * value / 255;
  return (1 - opacity) * pixel + opacity * colours[3 * value + c];
};
const kept = (pixel, value) => pixel * value / 255;
const open = async (key) => {
  const view = views[key], image = await load(view.image);
  image.alt = view.title;
  document.getElementById("view-title").textContent = view.title;
  const figures = [[image, "image"]];
  for (const [title, source, value] of view.maps) {
    const map = await load(source), words = value ? `${title}: ${value}` : title;
    figures.push([drawn(image, map, `map of ${title}`, over), drawn(image, map, `what ${title} keeps`, kept), words]);
  }
  document.getElementById("view").replaceChildren(...figures.map((parts) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    caption.textContent = parts.pop();
    figure.append(...parts, caption);
    return figure;
  }));
  dialog.showModal();
};
for (const one of document.querySelectorAll("[data-view]")) {
  one.addEventListener("click", () => open(one.dataset.view));
  if (one.tagName === "use") one.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(one.dataset.view); }
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
