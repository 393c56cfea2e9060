// Keeps a page up to date: when something happens that it shows, reads it again and replaces the regions that changed.
// Log lines of attempts under way are not kept anywhere yet, so they are added as they come. Without this script a page
// shows what a reload shows.
'use strict';

(() => {
  const main = document.querySelector('main[data-live]');
  if (!main || !window.EventSource) return;

  const lamp = document.getElementById('live');
  const lines = new Map(); // task -> lines of its attempt under way
  const MOST_LINES = 1000;
  let timer = null;
  let reading = false;
  let again = false;

  const say = (text) => { if (lamp && lamp.textContent !== text) lamp.textContent = text; };

  // Several events in a row need one look.
  const soon = () => {
    again = true;
    if (timer === null && !reading) timer = setTimeout(refresh, 250);
  };

  const refresh = async () => {
    timer = null;
    if (document.hidden) return;
    again = false;
    reading = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
      if (answer.redirected) return location.reload();
      if (answer.ok) show(new DOMParser().parseFromString(await answer.text(), 'text/html'));
    } catch {
      say('offline');
    } finally {
      reading = false;
      if (again) timer = setTimeout(refresh, 1000);
    }
  };

  const show = (fresh) => {
    for (const old of document.querySelectorAll('[data-region]')) {
      const now = fresh.getElementById(old.id);
      // Whoever types or chooses something is not disturbed.
      const chosen = (list) => list === document.activeElement;
      const typed = (field) => field.value !== '' || field === document.activeElement;
      if (!now || [...old.querySelectorAll('select')].some(chosen)) continue;
      if ([...old.querySelectorAll('textarea')].some(typed)) continue;
      for (const list of old.querySelectorAll('select[name]')) {
        const same = now.querySelector('select[name="' + list.name + '"]');
        if (same && [...same.options].some((option) => option.value === list.value)) same.value = list.value;
      }
      for (const open of old.querySelectorAll('details[open][id]')) {
        const same = now.querySelector('#' + CSS.escape(open.id));
        if (same) same.open = true;
      }
      const focused = old.contains(document.activeElement) && document.activeElement.getAttribute('href');
      old.replaceWith(now);
      if (focused) now.querySelector('[href="' + CSS.escape(focused) + '"]')?.focus();
    }
    for (const list of document.querySelectorAll('[data-log]')) {
      for (const line of lines.get(list.dataset.log) || []) list.append(entry(line));
      list.scrollTop = list.scrollHeight;
    }
    if (!fresh.querySelector('main[data-live]')) {
      source.close();
      say('');
    }
  };

  const entry = ({ time, source, level, message }) => {
    const item = document.createElement('li');
    item.className = 'level-' + level;
    const part = (name, className, text) => {
      const element = document.createElement(name);
      if (className) element.className = className;
      element.textContent = text;
      item.append(element);
    };
    part('time', '', time.slice(11, 23));
    part('span', 'source', source);
    part('span', 'text', message);
    return item;
  };

  const source = new EventSource('/api/v1/events?' + main.dataset.live);
  source.addEventListener('open', () => { say('live'); soon(); });
  source.addEventListener('error', () => say('offline'));
  for (const type of ['run_created', 'task_ended', 'run_ended', 'lagged']) source.addEventListener(type, soon);
  source.addEventListener('task_started', (event) => {
    lines.delete(JSON.parse(event.data).task);
    soon();
  });
  source.addEventListener('log', (event) => {
    const { task, line } = JSON.parse(event.data);
    const kept = lines.get(task) || [];
    if (kept.push(line) > MOST_LINES) kept.shift();
    lines.set(task, kept);
    const list = document.querySelector('[data-log="' + task + '"]');
    if (!list) return;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(entry(line));
    if (list.childElementCount > MOST_LINES) list.firstElementChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  });
  document.addEventListener('visibilitychange', () => { if (!document.hidden && again) soon(); });
})();
