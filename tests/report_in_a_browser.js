// What a person does on the page of test_train_report.py, and what the page shows then: the result
// stands in the page's title. Runs behind the page's own script.
{
  const one = (selector) => document.querySelector(selector);
  const bodyOf = (id) => [...one(`#${id}`).tBodies[0].rows];
  const column = (id, place) => bodyOf(id).map((row) => row.cells[place].textContent);
  const visible = (id) => bodyOf(id).filter((row) => !row.hidden).length;
  const parts = () => all("main > section.part").filter((part) => !part.hidden).map((part) => part.id);
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const enter = (input, value) => {
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const sorted = (id, place) => {
    one(`#${id} thead`).rows[0].cells[place].firstElementChild.click();
    return column(id, place);
  };
  const counter = () => one("#run2 .pager output").textContent;
  const told = { problems, first: parts() };

  one("[data-shows=run2]").click();
  told.second = parts();
  told.counters = [counter()];
  press("ArrowRight");
  told.counters.push(counter());
  press("ArrowLeft");
  press("ArrowLeft");
  told.counters.push(counter());
  const form = one("#run2 .samples form");
  enter(form.elements.kind, "hit");
  told.hits = Number(counter().split(" ").at(-1));
  told.kind = one("#run2 .kind").className;
  told.picture = one("#run2 .samples img")?.src.slice(0, 22);
  enter(form.elements.kind, "");
  enter(form.elements.text, "alert(1)");
  told.hostile = one("#run2 .question").textContent;

  told.sorted = [sorted("run2-answers", 1), sorted("run2-answers", 1), sorted("run2-answers", 0)];
  const settings = visible("together-settings");
  enter(one("[data-filters=together-settings]"), "features");
  told.filtered = [settings, visible("together-settings")];
  one("[data-swaps=run2-types]").click();
  told.open = [one("#run2-types-all").hidden, one("#run2-types-open").hidden];

  one("[data-shows=sweep1]").click();
  const row = one("#sweep1-trials tbody tr");
  row.dispatchEvent(new Event("mouseenter"));
  told.row = row.dataset.of;
  told.lit = all("#sweep1 svg g.lit").map((line) => line.id);
  one("#theme").click();
  told.theme = document.documentElement.style.colorScheme;
  told.width = [document.documentElement.scrollWidth, innerWidth];
  document.title = JSON.stringify(told);
}
