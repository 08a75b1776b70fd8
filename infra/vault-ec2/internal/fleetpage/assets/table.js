// Table is a table that shows the first rows of those that a search finds, and all of those in print.
const tables = [], inSearch = Symbol('the text in which a search looks');
class Table {
  constructor(parent, title, total, columns, rows) {
    this.columns = columns; this.all = rows; this.rows = rows; this.sorted = rows; this.limit = firstRows; this.words = []; this.parts = [];
    this.caption = element('caption', {}, element('strong', {}, title), ' ', total);
    const head = element('tr', {});
    this.heads = columns.map((c, n) => {
      const button = element('button', {type: 'button'}, c.label);
      button.addEventListener('click', () => this.sort(n));
      return head.appendChild(element('th', {scope: 'col', class: c.kind || '', 'aria-sort': 'none'}, button));
    });
    this.body = element('tbody', {});
    this.table = element('table', {'aria-rowcount': rows.length + 1}, this.caption, element('thead', {}, head), this.body);
    this.note = element('span', {class: 'soft'});
    this.next = element('button', {type: 'button'}, 'Show ' + number(moreRows) + ' more');
    this.next.addEventListener('click', () => { this.limit += moreRows; this.draw(); });
    this.more = element('div', {class: 'more'}, this.note, this.next);
    parent.append(element('div', {class: 'frame', role: 'region', tabindex: '0', 'aria-label': title + ', table'}, this.table, this.more));
    tables.push(this);
    this.draw();
  }
  text(row, c) { const v = c.get(row); return v === null || v === undefined ? '' : String(v); }
  // index makes the text of each row in which a search looks.
  index() {
    if (this.isIndexed) return;
    for (const r of this.all) r[inSearch] = this.columns.map((c) => this.text(r, c)).join('\n').toLowerCase();
    this.isIndexed = true;
  }
  search(words) {
    if (words.length) this.index();
    const narrows = this.words.length && this.words.every((old) => words.some((w) => w.includes(old)));
    this.words = words; this.limit = firstRows;
    this.rows = !words.length ? this.sorted : (narrows ? this.rows : this.sorted).filter((r) => words.every((w) => r[inSearch].includes(w)));
    this.draw();
  }
  sort(n) {
    const up = this.heads[n].getAttribute('aria-sort') !== 'ascending', c = this.columns[n], key = c.sort || c.get;
    const keyed = this.all.map((r, place) => ({r, k: key(r), place}));
    keyed.sort((a, b) => (a.k < b.k ? -1 : a.k > b.k ? 1 : 0) * (up ? 1 : -1) || a.place - b.place);
    this.sorted = keyed.map((x) => x.r);
    this.heads.forEach((h, i) => h.setAttribute('aria-sort', i !== n ? 'none' : up ? 'ascending' : 'descending'));
    const words = this.words;
    this.words = []; // all rows are looked at again, in their new order
    this.search(words);
  }
  row(r) {
    const tr = document.createElement('tr');
    this.columns.forEach((c, n) => {
      const cell = document.createElement(n === 0 ? 'th' : 'td');
      if (n === 0) cell.scope = 'row';
      if (c.kind) cell.className = c.kind;
      if (c.node) cell.append(c.node(r)); else cell.textContent = clean(this.text(r, c));
      tr.append(cell);
    });
    return tr;
  }
  // fill puts rows into a body of the table.
  fill(body, rows) {
    const part = document.createDocumentFragment();
    for (const r of rows) part.append(this.row(r));
    if (!this.rows.length) {
      part.append(element('tr', {}, element('td', {colspan: this.columns.length, class: 'soft'}, this.all.length ? 'No row has these words.' : 'None.')));
    }
    body.replaceChildren(part);
  }
  draw() {
    const rows = this.rows, n = Math.min(this.limit, rows.length);
    this.fill(this.body, rows.slice(0, n));
    this.note.textContent = (this.words.length ? number(rows.length) + ' of ' + counted(this.all.length, 'row') + ' found' : counted(rows.length, 'row')) + (n < rows.length ? ', the first ' + number(n) + ' shown' : '');
    this.next.hidden = n >= rows.length;
  }
  // print draws all rows that the search finds. For each page Chromium lays out all rows of the table on it, so a long table becomes many
  // short ones.
  print() {
    this.fill(this.body, this.rows.slice(0, printRows));
    for (let from = printRows; from < this.rows.length; from += printRows) {
      const head = element('tr', {}, ...this.columns.map((c) => element('th', {scope: 'col', class: c.kind || ''}, c.label))), body = element('tbody', {});
      this.fill(body, this.rows.slice(from, from + printRows));
      this.parts.push(element('table', {class: 'part'}, element('thead', {}, head), body));
    }
    this.table.after(...this.parts);
  }
  endPrint() {
    for (const p of this.parts) p.remove();
    this.parts = [];
    this.draw();
  }
}
