// A search through the documentation. The index is loaded when somebody begins to type; it is a script, since a page that
// was opened as a file may not read other files.
'use strict';

(() => {
  const place = document.getElementById('search');
  if (!place) return;

  const MOST = 20;
  const AROUND = 60; // characters shown before and after what was found

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const field = element('input', { type: 'search', placeholder: 'Search', autocomplete: 'off' });
  field.setAttribute('aria-label', 'Search the documentation');
  const status = element('p', { className: 'muted' });
  status.setAttribute('role', 'status');
  const list = element('ol');
  place.append(field, status, list);

  const load = () => {
    field.removeEventListener('focus', load);
    const script = element('script', { src: place.dataset.index });
    script.addEventListener('load', search);
    document.head.append(script);
  };

  const search = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter((word) => word.length > 1);
    list.replaceChildren();
    status.textContent = '';
    if (words.length === 0 || !globalThis.docsIndex) return;
    const found = [];
    for (const entry of globalThis.docsIndex) {
      const title = (entry.page + ' ' + entry.section).toLowerCase();
      const text = entry.text.toLowerCase();
      if (!words.every((word) => title.includes(word) || text.includes(word))) continue;
      // A word in a title counts for more than any number in the text.
      const rank = words.filter((word) => title.includes(word)).length;
      found.push({ entry, rank, at: text.indexOf(words.find((word) => text.includes(word)) ?? words[0]) });
    }
    found.sort((a, b) => b.rank - a.rank);
    status.textContent = found.length === 1 ? '1 section' : found.length + ' sections';
    for (const { entry, at } of found.slice(0, MOST)) {
      const name = entry.section === entry.page ? entry.page : entry.page + ': ' + entry.section;
      const from = Math.max(0, at - AROUND);
      const excerpt = (from > 0 ? '… ' : '') + entry.text.slice(from, at + AROUND).trim() + ' …';
      list.append(element('li', {}, element('a', { href: entry.address }, name), element('small', {}, excerpt)));
    }
  };

  field.addEventListener('focus', load);
  field.addEventListener('input', search);
})();
