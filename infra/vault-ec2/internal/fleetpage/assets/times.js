const colours = {'by event': 'one', 'by lifecycle hook': 'two', 'by quarantine': 'three'};
times();
function times() {
  const s = section('times', 'Time to ready and to cut-off', about('Measured from the event, from the lifecycle hook that held the instance, or from the order of a quarantine, until the login was possible, or until every token was refused. ' +
    'A grant or a removal by a repair has no event to measure from. Versions before this one recorded no times.'));
  const bounds = [1, 2, 5, 10, 30, 60, 300, 900, 3600, Infinity];
  const labels = ['below 1 s', '1–2 s', '2–5 s', '5–10 s', '10–30 s', '30–60 s', '1–5 min', '5–15 min', '15–60 min', '1 h and more'];
  const short = ['<1 s', '1–2', '2–5', '5–10', '10–30', '30–60 s', '1–5 min', '5–15', '15–60', '1 h+'];
  const kinds = [{label: 'Time to ready', of: readyOf, rows: instances.filter((i) => i.readyTo || i.profile)}, {label: 'Time to cut-off', of: cutOf, rows: instances.filter((i) => (i.state === 'deleted' || i.state === 'in quarantine') && (i.cutTo || i.profile))}];
  const stats = [], charts = element('div', {class: 'charts'});
  for (const k of kinds) {
    const spans = k.rows.map(k.of), why = (w) => spans.filter((x) => x.why === w).length;
    const parts = [['event', 'by event'], ['hook', 'by lifecycle hook']].concat(k.of === cutOf ? [['quarantine', 'by quarantine']] : []).map(([by, label]) => {
      const values = spans.filter((x) => x.by === by).map((x) => x.ms).sort((a, b) => a - b);
      const buckets = bounds.map((b, n) => values.filter((v) => v < b * 1000 && (n === 0 || v >= bounds[n - 1] * 1000)).length);
      return {label, values, buckets};
    });
    for (const p of parts) stats.push({label: k.label + ', ' + p.label, values: p.values, repair: '', none: ''});
    stats.push({label: k.label + ', not measured', values: [], repair: why('by a repair'), none: why('not recorded'), open: why('not yet')});
    charts.append(histogram(k.label, labels, short, parts));
  }
  s.append(charts);
  const q = (v, p) => v.length ? duration(v[Math.min(v.length - 1, Math.ceil(v.length * p) - 1)]) : '–';
  const cell = (x) => element('td', {class: 'number'}, x);
  const blank = (n) => n === '' || n === undefined ? '' : number(n);
  s.append(element('div', {class: 'frame', role: 'region', tabindex: '0', 'aria-label': 'Times, table'}, element('table', {},
    element('caption', {}, element('strong', {}, 'Times'), ' ', number(stats.reduce((n, r) => n + r.values.length, 0)) + ' measured. A half, nine tenths and 99 of 100 were not longer than the column says.'),
    element('thead', {}, element('tr', {}, element('th', {scope: 'col'}, 'Time'), ...['Measured', 'Shortest', '50%', '90%', '99%', 'Longest', 'By a repair', 'Not yet', 'Not recorded'].map((l) => element('th', {scope: 'col', class: 'number'}, l)))),
    element('tbody', {}, ...stats.map((r) => element('tr', {}, element('th', {scope: 'row'}, r.label), cell(r.values.length ? number(r.values.length) : r.repair === '' ? '0' : ''),
      ...(r.repair === '' ? [cell(q(r.values, 0.0001)), cell(q(r.values, .5)), cell(q(r.values, .9)), cell(q(r.values, .99)), cell(q(r.values, 1))] : ['', '', '', '', ''].map(cell)),
      cell(blank(r.repair)), cell(blank(r.open)), cell(blank(r.none))))))));
}
// histogram draws bars side by side, with a table of the same numbers.
function histogram(title, labels, short, parts) {
  const width = 640, height = 190, left = 8, bottom = 30, top = 18, used = parts.filter((p) => p.values.length);
  const most = Math.max(1, ...used.flatMap((p) => p.buckets)), step = (width - 2 * left) / labels.length;
  const all = used.reduce((n, p) => n + p.values.length, 0);
  const svg = shape('svg', {viewBox: '0 0 ' + width + ' ' + height, role: 'img', 'aria-label': title + ': ' + number(all) + ' measured times by their length; the table below has the numbers'});
  svg.append(shape('line', {x1: left, x2: width - left, y1: height - bottom, y2: height - bottom, class: 'axis'}));
  labels.forEach((label, n) => {
    const w = (step - 8) / Math.max(1, used.length);
    used.forEach((p, k) => {
      const h = p.buckets[n] ? Math.max(2, (height - bottom - top) * p.buckets[n] / most) : 0, x = left + n * step + 4 + k * w;
      if (!h) return;
      svg.append(shape('rect', {x: x, y: height - bottom - h, width: Math.max(1, w - 2), height: h, class: colours[p.label]}));
      svg.append(shape('text', {x: x + w / 2 - 1, y: height - bottom - h - 4, 'text-anchor': 'middle', class: 'value'}, number(p.buckets[n])));
    });
    svg.append(shape('text', {x: left + n * step + step / 2, y: height - 10, 'text-anchor': 'middle'}, short[n]));
  });
  const figure = element('figure', {}, element('figcaption', {}, title));
  if (!all) { figure.append(about('No time is measured yet.')); return figure; }
  const key = element('ul', {class: 'key', 'aria-hidden': 'true'}, ...used.map((p) => element('li', {class: colours[p.label]}, p.label)));
  figure.append(key, svg, numbers(title, ['Length', ...used.map((p) => p.label)], labels.map((l, n) => [l, ...used.map((p) => p.buckets[n])])));
  return figure;
}
function numbers(title, heads, rows) {
  return element('details', {}, element('summary', {}, 'The numbers'), element('table', {},
    element('caption', {}, element('strong', {}, title), ' ', number(rows.reduce((n, r) => n + r.slice(1).reduce((a, b) => a + b, 0), 0)) + ' in all'),
    element('thead', {}, element('tr', {}, ...heads.map((h, n) => element('th', {scope: 'col', class: n ? 'number' : ''}, h)))),
    element('tbody', {}, ...rows.map((r) => element('tr', {}, element('th', {scope: 'row'}, r[0]), ...r.slice(1).map((v) => element('td', {class: 'number'}, number(v))))))));
}

// causeOf returns the cause of a cut-off; nothing for one without a measured time.
function causeOf(i) { return {event: 'an event', hook: 'a lifecycle hook', quarantine: 'a quarantine'}[cutOf(i).by] || ''; }
removed();
function removed() {
  const s = section('removed', 'Removed in the last 30 days', about('The ledger keeps the record of a removed grant for 30 days, and of an instance without a grant for an hour. Before that, Vault’s audit log has it.'));
  const days = 31, end = Math.floor(parsed(head.to) / day), per = new Array(days).fill(0);
  for (const t of tombstones) { const n = days - 1 - (end - Math.floor(t.deleted / day)); if (n >= 0 && n < days) per[n]++; }
  const width = 1000, height = 170, left = 8, bottom = 30, top = 18, step = (width - 2 * left) / days, most = Math.max(1, ...per);
  const svg = shape('svg', {viewBox: '0 0 ' + width + ' ' + height, role: 'img', 'aria-label': number(tombstones.length) + ' removed grants by day, from ' + dateOf((end - days + 1) * day) + ' to ' + dateOf(end * day) + '; the table below has the numbers'});
  svg.append(shape('line', {x1: left, x2: width - left, y1: height - bottom, y2: height - bottom, class: 'axis'}));
  per.forEach((n, k) => {
    const h = n ? Math.max(2, (height - bottom - top) * n / most) : 0, x = left + k * step;
    if (h) svg.append(shape('rect', {x: x + 2, y: height - bottom - h, width: step - 4, height: h, class: 'one'}), shape('text', {x: x + step / 2, y: height - bottom - h - 4, 'text-anchor': 'middle', class: 'value'}, number(n)));
    if (k % 5 === 0) svg.append(shape('text', {x: x + step / 2, y: height - 10, 'text-anchor': 'middle'}, dateOf((end - days + 1 + k) * day).slice(5)));
  });
  s.append(element('figure', {}, element('figcaption', {}, 'Removed grants by day, in UTC'), svg, numbers('Removed grants by day', ['Day', 'Removed'], per.map((n, k) => [dateOf((end - days + 1 + k) * day), n]))));
  new Table(s, 'Tombstones', counted(tombstones.length, 'instance'), [
    {label: 'Instance', kind: 'id', get: (i) => i.id},
    {label: 'Profile', kind: 'wrap', get: (i) => i.profile || 'no grant'},
    {label: 'Name', kind: 'wrap', get: (i) => i.fqdn},
    {label: 'Addresses', get: (i) => i.addresses.join(' ')},
    {label: 'Account and region', get: place},
    {label: 'Recorded', kind: 'time', get: (i) => stamp(i.created), sort: (i) => i.created},
    {label: 'Removed', kind: 'time', get: (i) => stamp(i.deleted), sort: (i) => i.deleted},
    {label: 'Time to cut-off', kind: 'number', get: (i) => shown(cutOf(i)), sort: (i) => order(cutOf(i))},
      {label: 'Cause', get: causeOf},
    {label: 'Kept until', kind: 'time', get: (i) => stamp(i.expires), sort: (i) => i.expires},
    {label: 'Remarks', kind: 'wrap', get: notes},
  ], tombstones.slice().sort((a, b) => b.deleted - a.deleted));
}
