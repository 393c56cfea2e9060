// Evaluates the modules of a pack: package files compiled as functions, each on first use.
//
// Rust keeps sources, code caches and what every specifier resolves to; here is only the evaluation order and the
// shape of what modules see. A module is known by its number in the pack.

import { core, primordials } from "ext:core/mod.js";

const { op_fnhost_compile } = core.ops;
const {
  Error,
  ObjectDefineProperty,
  ObjectGetOwnPropertyDescriptor,
  ObjectHasOwn,
  ObjectKeys,
  PromiseResolve,
  PromisePrototypeThen,
  SymbolToStringTag,
} = primordials;

// Kinds of module and of import target; `isolate::pack` knows the numbers.
const ESM = 0;
const CJS = 1;
const JSON_TEXT = 2;
const MODULE = 0;
const BUILTIN = 1;
const MISSING = 2;

// Number to { kind, value, module? }: `value` is the namespace of an ES module, `module.exports` of the rest.
const records = [];
const builtins = { __proto__: null };

function builtin(name) {
  return builtins[name] ??= core.createLazyLoader(name)();
}

function notFound(specifier, message) {
  const error = new Error(message);
  error.code = "MODULE_NOT_FOUND";
  error.requireStack = [];
  return error;
}

// What an import of `target` reads from: a namespace, or the value of `module.exports`.
function read(target) {
  const { 0: type, 1: key, 2: specifier } = target;
  if (type === MODULE) return load(key);
  if (type === BUILTIN) return builtin(key);
  throw notFound(specifier, key);
}

function load(number) {
  const record = records[number] ?? evaluate(number);
  return record.kind === CJS ? record.module.exports : record.value;
}

function isFinished(target) {
  return target[0] !== MODULE || records[target[1]].module?.loaded !== false;
}

function kindOf(target) {
  return target[0] === MODULE ? (records[target[1]] ?? evaluate(target[1])).kind : ESM;
}

// The namespace object that `import * as x` gives for a CommonJS or JSON module.
function namespaceOf(target) {
  if (target[0] !== MODULE) return read(target);
  const record = records[target[1]] ?? evaluate(target[1]);
  if (record.kind === ESM) return record.value;
  if (record.namespace === undefined) {
    const value = load(target[1]);
    const namespace = { __proto__: null };
    if (value !== null && (typeof value === "object" || typeof value === "function")) {
      for (const key in value) ObjectDefineProperty(namespace, key, getter(() => value[key]));
    }
    ObjectDefineProperty(namespace, "default", getter(() => value));
    ObjectDefineProperty(namespace, SymbolToStringTag, { __proto__: null, value: "Module" });
    record.namespace = namespace;
  }
  return record.namespace;
}

function getter(get) {
  return { __proto__: null, get, enumerable: true, configurable: true };
}

function evaluate(number) {
  const { 0: kind, 1: compiled, 2: targets, 3: url, 4: filename, 5: dirname } = op_fnhost_compile(number);
  if (kind === JSON_TEXT) return records[number] = { kind, value: compiled };
  const record = kind === ESM
    ? { kind, value: { __proto__: null } }
    : { kind, module: { exports: {}, id: filename, filename, path: dirname, loaded: false, children: [], paths: [] } };
  records[number] = record;
  try {
    if (kind === ESM) evaluateModule(record.value, compiled, targets, url, filename, dirname);
    else evaluateScript(record.module, compiled, targets, filename, dirname);
  } catch (error) {
    delete records[number];
    throw error;
  }
  return record;
}

function evaluateModule(namespace, compiled, targets, url, filename, dirname) {
  ObjectDefineProperty(namespace, SymbolToStringTag, { __proto__: null, value: "Module" });
  const define = (getters) => {
    for (const name of ObjectKeys(getters)) ObjectDefineProperty(namespace, name, getter(getters[name]));
  };
  // A star neither exports `default` nor hides a name the module exports itself.
  const star = (slot) => {
    const source = namespaceOf(targets[slot]);
    for (const name of ObjectKeys(source)) {
      if (name !== "default" && !ObjectHasOwn(namespace, name)) {
        ObjectDefineProperty(namespace, name, getter(() => source[name]));
      }
    }
  };
  const slots = [];
  const fetch = (slot) => {
    const value = read(targets[slot]);
    // In a cycle, `module.exports` may still be replaced: only what is finished is remembered.
    if (isFinished(targets[slot])) slots[slot] = value;
    return value;
  };
  compiled(
    (slot) => slots[slot] ?? fetch(slot),
    (slot) => namespaceOf(targets[slot]),
    // Evaluated in a later microtask, as a dynamic import would.
    (slot) => PromisePrototypeThen(PromiseResolve(undefined), () => namespaceOf(targets[slot])),
    { __proto__: null, url, filename, dirname, main: false },
    define,
    star,
  );
}

let createRequire;
function nodeRequire(filename) {
  createRequire ??= builtin("node:module").createRequire;
  return createRequire(filename);
}

function evaluateScript(module, compiled, targets, filename, dirname) {
  const bySpecifier = { __proto__: null };
  for (const target of targets) bySpecifier[target[2]] = target;
  const require = (specifier) => {
    const target = bySpecifier[specifier];
    // A specifier computed at run time: Node's own way.
    if (target === undefined) return nodeRequire(filename)(specifier);
    if (target[0] === BUILTIN) {
      const namespace = builtin(target[1]);
      return namespace.default ?? namespace;
    }
    if (target[0] === MISSING) throw notFound(specifier, target[1]);
    if (kindOf(target) === ESM) {
      const namespace = load(target[1]);
      return ObjectHasOwn(namespace, "module.exports") ? namespace["module.exports"] : namespace;
    }
    return load(target[1]);
  };
  ObjectDefineProperty(require, "resolve", { __proto__: null, get: () => nodeRequire(filename).resolve });
  ObjectDefineProperty(require, "cache", { __proto__: null, get: () => nodeRequire(filename).cache });
  ObjectDefineProperty(require, "extensions", { __proto__: null, get: () => nodeRequire(filename).extensions });
  require.main = undefined;
  module.require = require;
  const { exports } = module;
  compiled.call(exports, exports, require, module, filename, dirname);
  module.loaded = true;
}

// The exports of an adaptor by its number in the pack.
export function adaptor(number) {
  return namespaceOf([MODULE, number, ""]);
}
