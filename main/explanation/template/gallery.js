// Sorts the cards; those with warnings stay first only where nothing else is asked.
const place = document.querySelector("main"), sort = document.getElementById("sort");
const order = document.getElementById("order"), cards = [...place.children];
const arrange = () => {
  const key = sort.value;
  const down = key !== "warning" && order.getAttribute("aria-pressed") === "true" ? -1 : 1;
  const compare = key === "picture"
    ? (a, b) => a.dataset.picture.localeCompare(b.dataset.picture)
    : (a, b) => a.dataset[key] - b.dataset[key];
  place.append(...[...cards].sort((a, b) => down * compare(a, b)));
};
sort.addEventListener("change", arrange);
order.addEventListener("click", () => {
  order.setAttribute("aria-pressed", order.getAttribute("aria-pressed") !== "true");
  arrange();
});
