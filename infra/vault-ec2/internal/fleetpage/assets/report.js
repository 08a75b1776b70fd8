// The report's page. Every value of the data comes from others: it becomes text, by textContent, and nothing else.
(function () {
  'use strict';

  const firstRows = 50, moreRows = 1000, day = 86400000;
  const data = JSON.parse(document.getElementById('data').textContent);
  const texts = data.texts;
  const main = document.getElementById('main');

  // clean shows characters that are not visible, or that turn the order of a text around.
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const clean = (text) => String(text).replace(hidden, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));

  function element(name, attributes, ...children) {
    const e = document.createElement(name);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    for (const child of children) {
      if (child !== null && child !== undefined) e.append(typeof child === 'object' ? child : clean(child));
    }
    return e;
  }
  const drawing = 'http://www.w3.org/2000/svg';
  function shape(name, attributes, text) {
    const e = document.createElementNS(drawing, name);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    if (text !== undefined) e.textContent = clean(text);
    return e;
  }

  const number = (n) => n.toLocaleString('en-US');
  const counted = (n, what) => number(n) + ' ' + (n === 1 ? what : what.endsWith('y') ? what.slice(0, -1) + 'ies' : what + 's');
  const stamp = (ms) => ms ? new Date(ms).toISOString().slice(0, 19).replace('T', ' ') + ' UTC' : '';
  const dateOf = (ms) => new Date(ms).toISOString().slice(0, 10);
  const parsed = (text) => text ? Date.parse(text) : 0;
  function duration(ms) {
    if (ms < 1000) return number(ms) + ' ms';
    if (ms < 60000) return (ms / 1000).toFixed(1) + ' s';
    const s = Math.round(ms / 1000);
    if (s < 3600) return Math.floor(s / 60) + ' min ' + (s % 60) + ' s';
    if (s < 86400) return Math.floor(s / 3600) + ' h ' + Math.floor(s % 3600 / 60) + ' min';
    return Math.floor(s / 86400) + ' d ' + Math.floor(s % 86400 / 3600) + ' h';
  }

  // objects returns rows as objects, by the names of their columns. A column in places is of texts by their places.
  function objects(columns, rows, places) {
    const isPlace = columns.map((c) => places.includes(c));
    return rows.map((row) => {
      const o = {};
      for (let i = 0; i < columns.length; i++) {
        const v = row[i];
        o[columns[i]] = !isPlace[i] ? v : Array.isArray(v) ? v.map((p) => texts[p]) : texts[v];
      }
      return o;
    });
  }
  const instances = objects(data.instanceColumns, data.instances, ['id', 'state', 'account', 'region', 'profile', 'fqdn', 'addresses', 'login', 'error', 'readyBy', 'cutBy']);
  const names = objects(data.nameColumns, data.names, ['name', 'under', 'instance', 'basis']);
  const live = instances.filter((i) => i.state !== 'deleted');
  const tombstones = instances.filter((i) => i.state === 'deleted');
  const stateOf = new Map(instances.map((i) => [i.id, i.state]));

  // span returns a measured time: its milliseconds, or why there are none.
  function span(by, from, to) {
    if (by === '?') return {why: 'not recorded'};
    if (!to) return {why: 'not yet'};
    if (!by || !from) return {why: 'by a repair'};
    return {ms: Math.max(0, to - from), by: by};
  }
  const readyOf = (i) => span(i.readyBy, i.readyFrom, i.readyTo);
  const cutOf = (i) => span(i.cutBy, i.cutFrom, i.cutTo);
  const shown = (s) => s.why || duration(s.ms);
  const order = (s) => s.why ? Infinity : s.ms;

  const good = ['active'], bad = ['refused', 'quarantined'], warn = ['provisioning', 'deprovisioning'];
  function badge(state) {
    const kind = good.includes(state) ? ' good' : bad.includes(state) ? ' bad' : warn.includes(state) ? ' warn' : '';
    return element('span', {class: 'state' + kind}, state || 'no record');
  }

  // Table is a table that shows the first rows of those that a search finds, and all rows in print.
  const tables = [], inSearch = Symbol('the text in which a search looks');
  class Table {
    constructor(parent, title, total, columns, rows) {
      this.columns = columns; this.all = rows; this.rows = rows; this.sorted = rows; this.limit = firstRows; this.words = [];
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
      this.words = words; this.limit = firstRows;
      if (words.length) this.index();
      this.rows = !words.length ? this.sorted : this.sorted.filter((r) => words.every((w) => r[inSearch].includes(w)));
      this.draw();
    }
    sort(n) {
      const up = this.heads[n].getAttribute('aria-sort') !== 'ascending', c = this.columns[n], key = c.sort || c.get;
      const keyed = this.all.map((r, place) => ({r, k: key(r), place}));
      keyed.sort((a, b) => (a.k < b.k ? -1 : a.k > b.k ? 1 : 0) * (up ? 1 : -1) || a.place - b.place);
      this.sorted = keyed.map((x) => x.r);
      this.heads.forEach((h, i) => h.setAttribute('aria-sort', i !== n ? 'none' : up ? 'ascending' : 'descending'));
      this.search(this.words);
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
    draw(everything) {
      const rows = everything ? this.all : this.rows, n = everything ? rows.length : Math.min(this.limit, rows.length);
      const part = document.createDocumentFragment();
      for (let i = 0; i < n; i++) part.append(this.row(rows[i]));
      if (!rows.length) {
        part.append(element('tr', {}, element('td', {colspan: this.columns.length, class: 'soft'}, this.all.length ? 'No row has these words.' : 'None.')));
      }
      this.body.replaceChildren(part);
      this.note.textContent = (this.words.length ? number(rows.length) + ' of ' + counted(this.all.length, 'row') + ' found' : counted(rows.length, 'row')) + (n < rows.length ? ', the first ' + number(n) + ' shown' : '');
      this.next.hidden = n >= rows.length;
    }
  }

  function section(id, title, ...about) {
    document.getElementById('sections').append(element('li', {}, element('a', {href: '#' + id}, title)));
    const s = element('section', {id: id, 'aria-labelledby': id + '-title'}, element('h2', {id: id + '-title'}, title), ...about);
    main.append(s);
    return s;
  }
  const about = (text) => element('p', {class: 'soft'}, text);

  // The head.
  const head = data.head;
  document.title = clean('Fleet report: ' + head.deployment + ', ' + dateOf(parsed(head.to)));
  document.querySelector('h1').textContent = clean('Fleet report: ' + head.deployment);
  const comparison = data.comparison;
  const facts = [
    ['Deployment', head.deployment], ['Account', head.account || 'not known'], ['Region', head.region], ['Vault namespace', head.namespace || 'the root namespace'],
    ['Ledger read', stamp(parsed(head.from)) + (parsed(head.to) - parsed(head.from) > 999 ? ' to ' + stamp(parsed(head.to)) : '')],
    ['Compared with EC2 and Vault', comparison ? 'from ' + stamp(parsed(comparison.at)) + ', in ' + duration(comparison.durationMs) : 'no'],
    ['Read by', 'function ' + head.function], ['Version', head.program + (head.command !== head.program ? ', written by vault-ec2 ' + head.command : '')],
    ['Active profiles', head.profiles || 'those that are part of the function'], ['Invocations, as the log has them', (head.requests || []).join(', ') || 'not known'],
  ];
  if (head.tornDown) facts.unshift(['Torn down', 'at ' + stamp(parsed(head.tornDown)) + ': nothing is granted']);
  const list = document.getElementById('head');
  for (const [label, value] of facts) list.append(element('div', {}, element('dt', {}, label), element('dd', {}, value)));

  // Its limits.
  const always = 'By its nature it has no instance without a record, such as those that no profile fits, and no grant that was removed more than 30 days before. ' +
    'The ledger changed while it was read: it is no snapshot of one moment.';
  const omitted = data.omitted || [];
  if (omitted.length) {
    main.append(element('section', {class: 'missing', id: 'missing', 'aria-labelledby': 'missing-title'}, element('h2', {id: 'missing-title'}, 'Not in this report'),
      element('ul', {}, ...omitted.map((o) => element('li', {}, element('strong', {}, o.what), ': ' + o.why))), element('p', {}, always)));
  } else {
    main.append(element('section', {class: 'whole', id: 'missing', 'aria-labelledby': 'missing-title'}, element('h2', {id: 'missing-title'}, 'Everything was read'),
      element('p', {}, 'The ledger was read to its end, and the fleet was compared in each account, region and folder. ' + always)));
  }

  // The totals.
  const troubled = live.filter((i) => i.state === 'refused' || i.error);
  const drift = comparison ? comparison.drift || [] : [];
  const conflicts = drift.filter((d) => d.reason === 'conflicting');
  const held = names.filter((n) => n.now);
  const cards = [
    [live.length, 'instances recorded'], [live.filter((i) => i.state === 'active').length, 'active'], [held.length, 'names and addresses held'],
    [troubled.length, 'refused or with an error', troubled.length > 0], [comparison ? drift.length : '–', 'rows of drift', drift.length > 0], [tombstones.length, 'removed, within 30 days'],
  ];
  main.append(element('ul', {class: 'cards', 'aria-label': 'Totals'}, ...cards.map(([n, label, isAlert]) =>
    element('li', isAlert ? {class: 'alert'} : {}, element('b', {}, typeof n === 'number' ? number(n) : n), label))));

  // The fleet by profile and state.
  function matrix() {
    const known = ['active', 'provisioning', 'deprovisioning', 'refused'];
    const seen = [...new Set(live.map((i) => i.state))];
    const states = known.concat(seen.filter((s) => !known.includes(s)).sort());
    const profiles = [...new Set(live.map((i) => i.profile))].sort();
    const count = new Map();
    for (const i of live) { const k = i.profile + '\n' + i.state; count.set(k, (count.get(k) || 0) + 1); }
    const at = (p, s) => count.get(p + '\n' + s) || 0;
    const sum = (of) => of.reduce((a, b) => a + b, 0);
    const cell = (n) => element('td', {class: 'number'}, n ? number(n) : '–');
    const s = section('fleet', 'The fleet by profile and state', about('Instances with a record in the ledger, without those whose grant is removed.'));
    s.append(element('div', {class: 'frame', role: 'region', tabindex: '0', 'aria-label': 'The fleet by profile and state, table'}, element('table', {},
      element('caption', {}, element('strong', {}, 'Instances by profile and state'), ' ', counted(live.length, 'instance') + ', ' + counted(profiles.filter((p) => p).length, 'profile')),
      element('thead', {}, element('tr', {}, element('th', {scope: 'col'}, 'Profile'), ...states.map((x) => element('th', {scope: 'col', class: 'number'}, x)), element('th', {scope: 'col', class: 'number'}, 'All'))),
      element('tbody', {}, ...profiles.map((p) => element('tr', {}, element('th', {scope: 'row'}, p || 'none yet'), ...states.map((x) => cell(at(p, x))), cell(sum(states.map((x) => at(p, x))))))),
      element('tfoot', {}, element('tr', {}, element('th', {scope: 'row'}, 'All'), ...states.map((x) => cell(sum(profiles.map((p) => at(p, x))))), cell(live.length))))));
  }
  matrix();

  const place = (r) => r.account + ' ' + r.region;
  function notes(i) {
    const out = [];
    if (i.error) out.push('has an error, see below');
    if (i.leaving) out.push('Auto Scaling terminates it since ' + stamp(i.leaving));
    if (i.quiet) out.push('second token cut due at ' + stamp(i.quiet));
    if (i.uncut) out.push('a token lives until ' + stamp(i.uncut));
    if (i.revoking) out.push('certificates are still being revoked');
    return out.join('; ');
  }
  new Table(section('instances', 'Instances', about('The name and the addresses are those of the grant. The time to ready is from the event, or from the launch hook, until the login was possible, of the first grant.')),
    'Instances', summary(live), [
      {label: 'Instance', kind: 'id', get: (i) => i.id},
      {label: 'State', get: (i) => i.state, node: (i) => badge(i.state)},
      {label: 'Profile', kind: 'wrap', get: (i) => i.profile},
      {label: 'Name', kind: 'wrap', get: (i) => i.fqdn},
      {label: 'Addresses', get: (i) => i.addresses.join(' ')},
      {label: 'Account and region', get: place},
      {label: 'Objects', kind: 'number', get: (i) => i.objects},
      {label: 'Recorded', kind: 'time', get: (i) => stamp(i.created), sort: (i) => i.created},
      {label: 'Time to ready', kind: 'number', get: (i) => shown(readyOf(i)), sort: (i) => order(readyOf(i))},
      {label: 'Remarks', kind: 'wrap', get: notes},
    ], live);

  function summary(rows) {
    const count = new Map();
    for (const i of rows) count.set(i.state, (count.get(i.state) || 0) + 1);
    return counted(rows.length, 'instance') + (rows.length ? ': ' + [...count].sort((a, b) => b[1] - a[1]).map(([s, n]) => number(n) + ' ' + s).join(', ') : '');
  }

  const until = (n) => n.now ? (n.until ? 'until ' + stamp(n.until) : 'now') : n.until ? 'before, until ' + stamp(n.until) : 'before';
  new Table(section('names', 'Names and addresses', about('A claim shows that one instance alone can get a name. Shared names have none. Former holders are those of the last 30 days.')),
    'Names and addresses', number(held.length) + ' held now, ' + number(names.length - held.length) + ' held before', [
      {label: 'Name or address', kind: 'wrap', get: (n) => n.name},
      {label: 'Held', get: until, sort: (n) => (n.now ? 1e15 : 0) + n.until},
      {label: 'Instance', kind: 'id', get: (n) => n.instance},
      {label: 'State', get: (n) => stateOf.get(n.instance) || 'no record', node: (n) => badge(stateOf.get(n.instance))},
      {label: 'Below', kind: 'wrap', get: (n) => n.under},
      {label: 'By', get: (n) => n.basis},
    ], names);

  const reasons = troubled.map((i) => ({id: i.id, what: i.state === 'refused' ? 'refused' : i.objects ? 'keeps its earlier grant' : 'without a grant', profile: i.profile, place: place(i), attempts: i.attempts, since: i.updated, why: i.error}))
    .concat(conflicts.map((d) => ({id: d.instanceId || 'no instance', what: 'conflict', profile: '', place: d.path, attempts: '', since: parsed(comparison.at), why: d.error || d.diff})));
  new Table(section('refused', 'Refused and in conflict', about('Why an instance has no grant, or not the one that it should have. A refusal is not tried again until its cause has passed; a conflict is a foreign object in the way, or a token that cannot be cut.')),
    'Refused and in conflict', number(troubled.filter((i) => i.state === 'refused').length) + ' refused, ' + number(troubled.filter((i) => i.state !== 'refused').length) + ' others with an error, ' + counted(conflicts.length, 'conflict') + ' by the comparison', [
      {label: 'Instance', kind: 'id', get: (r) => r.id},
      {label: 'What', get: (r) => r.what, node: (r) => element('span', {class: 'state ' + (r.what === 'keeps its earlier grant' ? 'warn' : 'bad')}, r.what)},
      {label: 'Profile', kind: 'wrap', get: (r) => r.profile},
      {label: 'Where', kind: 'wrap', get: (r) => r.place},
      {label: 'Attempts', kind: 'number', get: (r) => r.attempts},
      {label: 'Last written', kind: 'time', get: (r) => stamp(r.since), sort: (r) => r.since},
      {label: 'Why', kind: 'long', get: (r) => r.why},
    ], reasons);

  const driftSection = section('drift', 'Drift', about(comparison ?
    'Differences between EC2, the ledger and Vault. The comparison changes nothing. ' + scanned(comparison.scanned) : 'The fleet was not compared.'));
  function scanned(s) {
    return 'It compared ' + counted(s.instances, 'instance') + ' in EC2, ' + counted(s.records, 'record') + ', ' + counted(s.policies, 'policy') + ', ' + counted(s.authRoles, 'auth role') + ' and ' + counted(s.pkiRoles, 'PKI role') + '.';
  }
  function difference(d) {
    const box = element('div', {});
    if (d.fields && d.fields.length) box.append(element('div', {}, 'fields: ' + d.fields.join(', ')));
    if (d.error) box.append(element('div', {}, d.error));
    if (d.diff) box.append(element('pre', {tabindex: '0', 'aria-label': 'difference'}, d.diff));
    return box;
  }
  if (comparison) {
    const s = comparison.summary;
    new Table(driftSection, 'Drift', counted(drift.length, 'row') + ' shown: in all ' + number(s.missing) + ' missing, ' + number(s.changed) + ' changed, ' + number(s.orphaned) + ' orphaned, ' + number(s.conflicting) + ' conflicting, ' + number(s.failed) + ' not compared', [
      {label: 'Instance', kind: 'id', get: (d) => d.instanceId || 'no instance'},
      {label: 'Object', get: (d) => d.object},
      {label: 'Reason', get: (d) => d.reason, node: (d) => element('span', {class: 'state ' + (d.reason === 'conflicting' ? 'bad' : 'warn')}, d.reason)},
      {label: 'Repair', get: (d) => d.action},
      {label: 'Path', kind: 'wrap', get: (d) => d.path},
      {label: 'Difference', kind: 'long', get: (d) => [(d.fields || []).join(' '), d.error, d.diff].join('\n'), node: difference},
    ], drift);
  }

  times();
  function times() {
    const s = section('times', 'Time to ready and to cut-off', about('Measured from the event, or from the lifecycle hook that held the instance, until the login was possible, or until every token was refused. ' +
      'A grant or a removal by a repair has no event to measure from. Versions before this one recorded no times.'));
    const bounds = [1, 2, 5, 10, 30, 60, 300, 900, 3600, Infinity];
    const labels = ['below 1 s', '1–2 s', '2–5 s', '5–10 s', '10–30 s', '30–60 s', '1–5 min', '5–15 min', '15–60 min', '1 h and more'];
    const short = ['<1 s', '1–2', '2–5', '5–10', '10–30', '30–60 s', '1–5 min', '5–15', '15–60', '1 h+'];
    const kinds = [{label: 'Time to ready', of: readyOf, rows: instances.filter((i) => i.readyTo || i.profile)}, {label: 'Time to cut-off', of: cutOf, rows: tombstones.filter((i) => i.cutTo || i.profile)}];
    const stats = [], charts = element('div', {class: 'charts'});
    for (const k of kinds) {
      const spans = k.rows.map(k.of), why = (w) => spans.filter((x) => x.why === w).length;
      const parts = [['event', 'by event'], ['hook', 'by lifecycle hook']].map(([by, label]) => {
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
        svg.append(shape('rect', {x: x, y: height - bottom - h, width: Math.max(1, w - 2), height: h, class: p.label === 'by event' ? 'one' : 'two'}));
        svg.append(shape('text', {x: x + w / 2 - 1, y: height - bottom - h - 4, 'text-anchor': 'middle', class: 'value'}, number(p.buckets[n])));
      });
      svg.append(shape('text', {x: left + n * step + step / 2, y: height - 10, 'text-anchor': 'middle'}, short[n]));
    });
    const figure = element('figure', {}, element('figcaption', {}, title));
    if (!all) { figure.append(about('No time is measured yet.')); return figure; }
    const key = element('ul', {class: 'key', 'aria-hidden': 'true'}, ...used.map((p) => element('li', p.label === 'by event' ? {} : {class: 'second'}, p.label)));
    figure.append(key, svg, numbers(title, ['Length', ...used.map((p) => p.label)], labels.map((l, n) => [l, ...used.map((p) => p.buckets[n])])));
    return figure;
  }
  function numbers(title, heads, rows) {
    return element('details', {}, element('summary', {}, 'The numbers'), element('table', {},
      element('caption', {}, element('strong', {}, title), ' ', number(rows.reduce((n, r) => n + r.slice(1).reduce((a, b) => a + b, 0), 0)) + ' in all'),
      element('thead', {}, element('tr', {}, ...heads.map((h, n) => element('th', {scope: 'col', class: n ? 'number' : ''}, h)))),
      element('tbody', {}, ...rows.map((r) => element('tr', {}, element('th', {scope: 'row'}, r[0]), ...r.slice(1).map((v) => element('td', {class: 'number'}, number(v))))))));
  }

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
      {label: 'Kept until', kind: 'time', get: (i) => stamp(i.expires), sort: (i) => i.expires},
      {label: 'Remarks', kind: 'wrap', get: notes},
    ], tombstones.slice().sort((a, b) => b.deleted - a.deleted));
  }

  // The search.
  const box = document.getElementById('search'), found = document.getElementById('found');
  box.addEventListener('input', () => {
    const words = box.value.toLowerCase().split(/\s+/).filter((w) => w);
    for (const t of tables) t.search(words);
    found.textContent = words.length ? counted(tables.reduce((n, t) => n + t.rows.length, 0), 'row') + ' found' : '';
  });
  const waiting = tables.slice();
  (function indexNext() { // one table at a time, so that the page answers meanwhile
    const t = waiting.shift();
    if (t) { t.index(); setTimeout(indexNext, 0); }
  })();

  // Print has all rows, whatever is searched.
  window.addEventListener('beforeprint', () => {
    for (const t of tables) t.draw(true);
    for (const d of document.querySelectorAll('details')) { d.dataset.was = d.open ? '1' : ''; d.open = true; }
  });
  window.addEventListener('afterprint', () => {
    for (const t of tables) t.draw();
    for (const d of document.querySelectorAll('details')) d.open = d.dataset.was === '1';
  });
  document.documentElement.dataset.ready = 'yes';
})();
