// The search waits until no key was pressed for a moment. Enter, and leaving the box, need no wait.
const box = document.getElementById('search'), found = document.getElementById('found'), prints = document.getElementById('prints'), printed = document.getElementById('printed');
const pause = 80, manyRows = 5000;
let timer = 0, searched = '';
box.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(look, pause); });
box.addEventListener('change', look);
function look() {
  clearTimeout(timer);
  if (box.value === searched) return;
  searched = box.value;
  const words = searched.toLowerCase().split(/\s+/).filter((w) => w);
  for (const t of tables) t.search(words);
  sayRows(words);
}
// sayRows says how many rows were found, and how many a print has.
function sayRows(words) {
  const all = tables.reduce((n, t) => n + t.all.length, 0), n = tables.reduce((sum, t) => sum + t.rows.length, 0);
  found.textContent = words.length ? counted(n, 'row') + ' found' : '';
  prints.textContent = (words.length ? 'A print now has the ' + counted(n, 'row') + ' found, of ' + number(all) : 'A print now has all ' + counted(n, 'row')) +
    (n > manyRows ? '. That takes minutes: search for a profile, a network or a day first to print a part' : '') + '.';
  printed.textContent = words.length ? clean('This print is a part of the report: the ' + counted(n, 'row') + ', of ' + number(all) + ', that have the words: ' + words.join(' ')) : '';
}
sayRows([]);
const waiting = tables.slice();
(function indexNext() { // one table at a time, so that the page answers meanwhile
  const t = waiting.shift();
  if (t) { t.index(); setTimeout(indexNext, 0); }
})();

window.addEventListener('beforeprint', () => {
  look();
  for (const t of tables) t.print();
  for (const d of document.querySelectorAll('details')) { d.dataset.was = d.open ? '1' : ''; d.open = true; }
});
window.addEventListener('afterprint', () => {
  for (const t of tables) t.endPrint();
  for (const d of document.querySelectorAll('details')) d.open = d.dataset.was === '1';
});
document.documentElement.dataset.ready = 'yes';
