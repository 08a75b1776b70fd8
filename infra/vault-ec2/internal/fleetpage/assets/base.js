// The report's page. Every value of the data comes from others: it becomes text, by textContent, and nothing else.

const firstRows = 50, moreRows = 1000, printRows = 50, day = 86400000;
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
// A grant that a quarantine removed is no tombstone while the instance lives.
const markOf = new Map((data.quarantines || []).map((q) => [q.instanceId, q]));
const isMarked = (q) => q !== undefined && !q.releasedAt && !q.endedAt;
for (const i of instances) {
  i.mark = markOf.get(i.id);
  if (i.state === 'deleted' && isMarked(i.mark)) i.state = 'in quarantine';
}
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

const good = ['active'], bad = ['refused', 'in quarantine'], warn = ['provisioning', 'deprovisioning'];
function badge(state) {
  const kind = good.includes(state) ? ' good' : bad.includes(state) ? ' bad' : warn.includes(state) ? ' warn' : '';
  return element('span', {class: 'state' + kind}, state || 'no record');
}
