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
const marked = instances.filter((i) => isMarked(i.mark));
const cards = [
  [live.length, 'instances recorded'], [live.filter((i) => i.state === 'active').length, 'active'], [held.length, 'names and addresses held'],
  [troubled.length, 'refused or with an error', troubled.length > 0], [marked.length, 'in quarantine', marked.length > 0], [comparison ? drift.length : '–', 'rows of drift', drift.length > 0], [tombstones.length, 'removed, within 30 days'],
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
  const s = section('fleet', 'The fleet by profile and state', about('Instances with a record in the ledger, without those whose grant is removed; those in quarantine are among them.'));
  s.append(element('div', {class: 'frame', role: 'region', tabindex: '0', 'aria-label': 'The fleet by profile and state, table'}, element('table', {},
    element('caption', {}, element('strong', {}, 'Instances by profile and state'), ' ', counted(live.length, 'instance') + ', ' + counted(profiles.filter((p) => p).length, 'profile')),
    element('thead', {}, element('tr', {}, element('th', {scope: 'col'}, 'Profile'), ...states.map((x) => element('th', {scope: 'col', class: 'number'}, x)), element('th', {scope: 'col', class: 'number'}, 'All'))),
    element('tbody', {}, ...profiles.map((p) => element('tr', {}, element('th', {scope: 'row'}, p || 'none yet'), ...states.map((x) => cell(at(p, x))), cell(sum(states.map((x) => at(p, x))))))),
    element('tfoot', {}, element('tr', {}, element('th', {scope: 'row'}, 'All'), ...states.map((x) => cell(sum(profiles.map((p) => at(p, x))))), cell(live.length))))));
}
matrix();

const place = (r) => r.account + ' ' + r.region;
// markText says in one line whether an instance is in quarantine.
function markText(q) {
  const since = 'since ' + stamp(parsed(q.since));
  if (q.releasedAt) return 'was in quarantine ' + since + ', released ' + stamp(parsed(q.releasedAt));
  return (q.endedAt ? 'was in quarantine until its end, ' : 'in quarantine ') + since + ', see below';
}
function notes(i) {
  const out = [];
  if (i.mark) out.push(markText(i.mark));
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

// The quarantine. Who ordered it is a claim of the order.
const marks = instances.filter((i) => i.mark).sort((a, b) => isMarked(b.mark) - isMarked(a.mark) || parsed(b.mark.since) - parsed(a.mark.since));
const orders = {command: 'by command', finding: 'by a finding'};
function markState(q) { return q.releasedAt ? 'released' : q.endedAt ? 'ended' : 'in quarantine'; }
function cutState(i) {
  if (i.mark.releasedAt) return i.cutBy === 'quarantine' ? stamp(i.cutTo) : ''; // another removal may have come after it
  if (i.cutTo) return stamp(i.cutTo);
  return i.state !== 'in quarantine' && i.state !== 'deleted' ? 'not yet' : i.profile ? 'not recorded' : 'had no grant';
}
new Table(section('quarantine', 'Quarantine', about('Instances that were cut off while they ran. One in quarantine gets no grant until it is released, and holds its names. One that was released or has ended is shown while the ledger has its record. ' +
  'The name of who ordered it is what the order says; the log of CloudTrail has the proof.')),
  'Quarantine', counted(marked.length, 'instance') + ' in quarantine, ' + number(marks.filter((i) => i.mark.releasedAt).length) + ' released, ' + number(marks.filter((i) => !i.mark.releasedAt && i.mark.endedAt).length) + ' ended in quarantine', [
    {label: 'Instance', kind: 'id', get: (i) => i.id},
    {label: 'State', get: (i) => markState(i.mark), node: (i) => element('span', {class: 'state ' + (isMarked(i.mark) ? 'bad' : '')}, markState(i.mark))},
    {label: 'Since', kind: 'time', get: (i) => stamp(parsed(i.mark.since)), sort: (i) => parsed(i.mark.since)},
    {label: 'By', kind: 'wrap', get: (i) => i.mark.by + ' (' + (orders[i.mark.source] || i.mark.source) + ')'},
    {label: 'Reason', kind: 'wrap', get: (i) => i.mark.reason},
    {label: 'Tokens cut', kind: 'time', get: cutState, sort: (i) => i.cutTo},
    {label: 'Ended', kind: 'time', get: (i) => stamp(parsed(i.mark.endedAt)), sort: (i) => parsed(i.mark.endedAt)},
    {label: 'Released', kind: 'time', get: (i) => stamp(parsed(i.mark.releasedAt)), sort: (i) => parsed(i.mark.releasedAt)},
    {label: 'Released by', kind: 'wrap', get: (i) => i.mark.releasedBy || ''},
    {label: 'Reason of the release', kind: 'wrap', get: (i) => i.mark.releaseReason || ''},
  ], marks);

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
