// What `globalThis` means in job code: an object that offers the names a job may use anyway, and nothing else.
// The host puts the list in place of NAMES, so there is one list (compile::LANGUAGE_GLOBALS and HOST_GLOBALS).

const scope = Object.create(null);
for (const name of NAMES) {
  if (!(name in globalThis)) continue;
  Object.defineProperty(scope, name, { get: () => globalThis[name] });
}
Object.freeze(scope);

export { scope as globalThis };
