// Evaluates the modules of a pack: package files compiled as functions, each on first use.
//
// Rust keeps sources, code caches and what every specifier resolves to; here is only the evaluation order and the
// shape of what modules see. A module is known by its number in the pack.

import { core, primordials } from "ext:core/mod.js";
import { undici } from "ext:fnhost/http_client.js";
import * as runtime from "ext:fnhost/runtime.js";

const { op_fnhost_compile, op_fnhost_find, op_fnhost_loading, op_fnhost_resolve, op_fnhost_scope_names } = core.ops;
const {
  ArrayPrototypeFind,
  ArrayPrototypePop,
  ArrayPrototypePush,
  Error,
  ObjectDefineProperty,
  ObjectFreeze,
  ObjectHasOwn,
  ObjectKeys,
  PromiseResolve,
  PromisePrototypeThen,
  String,
  SymbolToStringTag,
} = primordials;

// Kinds of module and of import target; `isolate::pack` knows the numbers.
const ESM = 0;
const CJS = 1;
const JSON_TEXT = 2;
const MODULE = 0;
const BUILTIN = 1;
const MISSING = 2;

// What takes time; `isolate::phases` knows the numbers.
const LOADING_MODULES = 0;
const LOADING_BUILT_IN = 1;

// Number to { kind, value | module | failure }: `value` is the namespace of an ES module or what JSON says, `module`
// is the `module` of CommonJS, and `failure` holds what an ES module threw: it is never evaluated again.
const records = [];

// ---------------------------------------------------------------------------------------------------------------
// What imports lead to
// ---------------------------------------------------------------------------------------------------------------

function recordOf(number, parent) {
  const record = records[number];
  if (tainted[number]) taint();
  if (record === undefined) return evaluate(number, parent);
  if (record.failure !== undefined) throw record.failure.error;
  return record;
}

function valueOf(record) {
  return record.kind === CJS ? record.module.exports : record.value;
}

// False while a CommonJS module is being evaluated: `module.exports` may still be replaced.
function isFinished(record) {
  return record.kind !== CJS || record.module.loaded;
}

function notFound(target) {
  const { 1: message, 3: code } = target;
  const error = new Error(message);
  error.code = code;
  return error;
}

// What an import of `target` reads from: a namespace, or the value of `module.exports`.
function read(target) {
  const { 0: type, 1: key } = target;
  if (type === MODULE) return valueOf(recordOf(key));
  if (type === BUILTIN) return builtin(key);
  throw notFound(target);
}

// The namespace object that `import * as x` gives.
function namespaceOf(target) {
  if (target[0] !== MODULE) return read(target);
  const record = recordOf(target[1]);
  if (record.kind === ESM) return record.value;
  if (record.namespace !== undefined) return record.namespace;
  const value = valueOf(record);
  const namespace = { __proto__: null };
  if (value !== null && (typeof value === "object" || typeof value === "function")) {
    for (const key in value) ObjectDefineProperty(namespace, key, getter(() => value[key]));
    // Compilers to CommonJS define it so that no loop finds it.
    if (ObjectHasOwn(value, "__esModule")) {
      ObjectDefineProperty(namespace, "__esModule", getter(() => value.__esModule));
    }
  }
  ObjectDefineProperty(namespace, "default", getter(() => value));
  if (record.kind === CJS) ObjectDefineProperty(namespace, "module.exports", getter(() => value));
  ObjectDefineProperty(namespace, SymbolToStringTag, { __proto__: null, value: "Module" });
  if (isFinished(record)) record.namespace = namespace;
  return namespace;
}

// What `require` gives of an ES module: Node adds the flag by which compiled code knows to look at `default`.
function requiredNamespace(record) {
  const namespace = record.value;
  if (ObjectHasOwn(namespace, "module.exports")) return namespace["module.exports"];
  if (!ObjectHasOwn(namespace, "default") || ObjectHasOwn(namespace, "__esModule")) return namespace;
  if (record.required === undefined) {
    const required = { __proto__: null };
    for (const key of ObjectKeys(namespace)) ObjectDefineProperty(required, key, getter(() => namespace[key]));
    ObjectDefineProperty(required, "__esModule", { __proto__: null, value: true, enumerable: true });
    ObjectDefineProperty(required, SymbolToStringTag, { __proto__: null, value: "Module" });
    record.required = required;
  }
  return record.required;
}

function getter(get) {
  return { __proto__: null, get, enumerable: true, configurable: true };
}

// ---------------------------------------------------------------------------------------------------------------
// Node's own modules
// ---------------------------------------------------------------------------------------------------------------

const builtins = { __proto__: null };

// The same as the runtime has them. To ask it again for one that a snapshot holds would cost each run half a millisecond:
// it makes all its functions anew before it looks.
const parts = { __proto__: null };

export function loadPart(name) {
  return parts[name] ??= core.createLazyLoader(name)();
}

export const isPartLoaded = (name) => parts[name] !== undefined;
export const areAnyPartsLoaded = () => ObjectKeys(parts).length > 0;

// Told of each of them before anybody else sees it; says what they shall see.
let guard;

export function guardBuiltins(by) {
  guard = by;
  for (const name of ObjectKeys(builtins)) builtins[name] = guard(name, builtins[name]);
}

// What the modules that the host puts into packs ask for; `isolate::pack::build` writes them.
const HOST_PART = "fnhost:http";
const hostPart = ObjectFreeze({ __proto__: null, undici: (load, loadErrors) => undici(load, loadErrors, builtin) });

export function builtin(name) {
  if (name === HOST_PART) return hostPart;
  const watched = observer?.onBuiltin(name);
  if (watched !== undefined) return watched;
  const known = builtins[name];
  if (known !== undefined) return known;
  op_fnhost_loading(LOADING_BUILT_IN, true);
  let namespace = loadPart(name);
  op_fnhost_loading(LOADING_BUILT_IN, false);
  if (guard !== undefined) namespace = guard(name, namespace);
  builtins[name] = namespace;
  if (name === "node:module") shareModules(namespace.default);
  return namespace;
}

// Node's loader, once it is in use: for `createRequire` and for paths that are only known at run time. From then on
// both loaders keep CommonJS modules in Node's cache, so that a file is evaluated once, whoever asks for it.
let node;

function shareModules(Module) {
  node = Module;
  for (const number of ObjectKeys(records)) {
    const { module } = records[number];
    if (module !== undefined) node._cache[module.filename] ??= module;
  }
}

function nodeRequire(filename) {
  return builtin("node:module").createRequire(filename);
}

function requireComputed(specifier, module) {
  return builtin("node:module").default._load(specifier, module, false);
}

// ---------------------------------------------------------------------------------------------------------------
// Evaluation
// ---------------------------------------------------------------------------------------------------------------

// What was compiled before the isolate had a job.
const ahead = { __proto__: null };

export function compileAhead(number) {
  if (records[number] === undefined) ahead[number] = op_fnhost_compile(number);
}

function compile(number) {
  const known = kept?.[number];
  if (known !== undefined) return known;
  const compiled = ahead[number] ?? op_fnhost_compile(number);
  ahead[number] = undefined;
  if (kept !== undefined) keep(number, compiled);
  return compiled;
}

// What was compiled by earlier runs, where runs share that and evaluate all modules anew.
let kept;

function keep(number, compiled) {
  const { 0: kind, 1: code } = compiled;
  // What JSON says may be changed by those who read it.
  if (kind === JSON_TEXT) return;
  // A script can lay hold of its own function.
  ObjectFreeze(code);
  ObjectFreeze(code.prototype);
  kept[number] = compiled;
}

// Says of a module that was evaluated whether it may outlast `forget`.
let share;

// Numbers of those that may, and of those that may no longer.
let libraries;
let abandoned;

// From now on modules are compiled once, and evaluated anew after each `forget`.
export function keepCompiled(by) {
  kept = { __proto__: null };
  libraries = { __proto__: null };
  abandoned = { __proto__: null };
  share = by;
  forget();
}

// Lets go of all that was evaluated and may not outlast it.
export function forget() {
  records.length = 0;
  order.length = 0;
  if (node !== undefined) {
    for (const filename of ObjectKeys(node._cache)) delete node._cache[filename];
  }
  for (const number of ObjectKeys(awaited)) delete awaited[number];
  for (const number of ObjectKeys(libraries)) records[number] = libraries[number];
}

function offer(number, record) {
  const { module } = record;
  const letGo = () => {
    abandoned[number] = true;
    delete libraries[number];
  };
  if (abandoned[number] || !share(module.filename, module.exports, letGo)) return;
  // Where it was first required is of that run.
  module.parent = undefined;
  module.children = [];
  libraries[number] = record;
}

// Modules in the order in which their evaluation began, since the isolate started: { number, parent, isRoot }. A root is
// what a job, or an adaptor that waited with it, was the first to read.
const order = [];

// The same as numbers, three for each: the module, what required it or -1, and 1 if it is a root. In a rehearsal, only of
// those that may be in a snapshot.
export function evaluated() {
  const numbers = [];
  for (let index = 0; index < order.length; index++) {
    const { number, parent, isRoot } = order[index];
    if (!tainted[number] && records[number] !== undefined) ArrayPrototypePush(numbers, number, numberOf(parent), isRoot ? 1 : 0);
  }
  return numbers;
}

function numberOf(module) {
  if (module === undefined) return -1;
  return +(ArrayPrototypeFind(ObjectKeys(records), (number) => records[number].module === module) ?? -1);
}

function evaluate(number, parent) {
  const isOutermost = underEvaluation.length === 0;
  const isRoot = isOutermost && parent === undefined;
  ArrayPrototypePush(order, { __proto__: null, number, parent, isRoot });
  if (isOutermost) op_fnhost_loading(LOADING_MODULES, true);
  ArrayPrototypePush(underEvaluation, number);
  const check = observer?.beforeModule(builtins);
  try {
    return evaluateNow(number, parent);
  } finally {
    check?.();
    ArrayPrototypePop(underEvaluation);
    if (isOutermost) op_fnhost_loading(LOADING_MODULES, false);
  }
}

function evaluateNow(number, parent) {
  const { 0: kind, 1: compiled, 2: targets, 3: url, 4: filename, 5: dirname } = compile(number);
  if (kind === JSON_TEXT) return records[number] = { kind, value: compiled };
  const dynamic = dynamicImport(number, targets);
  if (kind === ESM) {
    const record = { kind, value: { __proto__: null } };
    records[number] = record;
    try {
      evaluateModule(number, record.value, compiled, targets, dynamic, url, filename, dirname);
    } catch (error) {
      record.failure = { error };
      throw error;
    }
    return record;
  }
  const shared = node?._cache[filename];
  const record = { kind, module: shared ?? moduleFor(number, filename, dirname, parent) };
  records[number] = record;
  if (shared !== undefined) return record;
  if (node !== undefined) node._cache[filename] = record.module;
  try {
    evaluateScript(record.module, compiled, targets, dynamic, filename, dirname);
  } catch (error) {
    // As in Node: a CommonJS module that threw is evaluated anew when it is required again.
    delete records[number];
    if (node !== undefined) delete node._cache[filename];
    throw error;
  }
  if (share !== undefined) offer(number, record);
  return record;
}

function evaluateModule(number, namespace, compiled, targets, dynamic, url, filename, dirname) {
  ObjectDefineProperty(namespace, SymbolToStringTag, { __proto__: null, value: "Module" });
  const define = (getters, nameless) => {
    for (const name of ObjectKeys(getters)) ObjectDefineProperty(namespace, name, getter(getters[name]));
    if (nameless !== undefined) {
      ObjectDefineProperty(nameless, "name", { __proto__: null, value: "default", configurable: true });
    }
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
    const target = targets[slot];
    const value = read(target);
    // In a rehearsal nothing is kept, so that every use of a tainted module is seen.
    if (observer === undefined && (target[0] !== MODULE || isFinished(records[target[1]]))) slots[slot] = value;
    return value;
  };
  const resolve = (specifier) => op_fnhost_resolve(number, String(specifier));
  compiled(
    (slot) => slots[slot] ?? fetch(slot),
    (slot) => namespaceOf(targets[slot]),
    dynamic,
    { __proto__: null, url, filename, dirname, main: false, resolve },
    define,
    star,
    (method) => method,
  );
}

// `import(...)`: of a known target by its slot, of any other with the function that does it natively.
function dynamicImport(number, targets) {
  const later = (get) => PromisePrototypeThen(PromiseResolve(undefined), get);
  return (target, specifier, options) => {
    if (typeof target === "number") return later(() => namespaceOf(targets[target]));
    return later(() => {
      const text = String(specifier);
      const found = op_fnhost_find(number, text);
      return found < 0 ? target(text, options) : namespaceOf([MODULE, found]);
    });
  };
}

function newModule(filename, dirname) {
  const module = { exports: {}, id: filename, filename, path: dirname, loaded: false, children: [], parent: undefined };
  ObjectDefineProperty(module, "paths", getter(() => builtin("node:module").default._nodeModulePaths(dirname)));
  return module;
}

function moduleFor(number, filename, dirname, parent) {
  const module = awaited[number] ?? newModule(filename, dirname);
  module.parent = parent;
  if (parent !== undefined) ArrayPrototypePush(parent.children, module);
  return module;
}

function evaluateScript(module, compiled, targets, dynamic, filename, dirname) {
  const bySpecifier = { __proto__: null };
  for (const target of targets) bySpecifier[target[2]] = target;
  const require = (specifier) => {
    const target = bySpecifier[specifier];
    // A specifier computed at run time: Node's own way.
    if (target === undefined) return requireComputed(specifier, module);
    const { 0: type, 1: key } = target;
    if (type === BUILTIN) {
      const namespace = builtin(key);
      return namespace.default ?? namespace;
    }
    if (type === MISSING) throw notFound(target);
    const record = recordOf(key, module);
    return record.kind === ESM ? requiredNamespace(record) : valueOf(record);
  };
  ObjectDefineProperty(require, "resolve", getter(() => nodeRequire(filename).resolve));
  ObjectDefineProperty(require, "cache", getter(() => nodeRequire(filename).cache));
  ObjectDefineProperty(require, "extensions", getter(() => nodeRequire(filename).extensions));
  require.main = undefined;
  module.require = require;
  const { exports } = module;
  compiled.call(exports, exports, require, module, filename, dirname, dynamic);
  module.loaded = true;
}

// ---------------------------------------------------------------------------------------------------------------
// Snapshots
// ---------------------------------------------------------------------------------------------------------------

// Numbers of the modules that are being evaluated, the innermost last.
const underEvaluation = [];

// Numbers of the modules that may not be evaluated in a snapshot: each that did what only a run may do, and each that
// used one of them while it was evaluated itself.
const tainted = { __proto__: null };

// In a rehearsal, told of each part of the Node layer that is read, for which it may give another, and of each module
// before it is evaluated and after.
let observer;

export function observe(by) {
  observer = by;
}

// What happens while no module is evaluated was put off by one, by whichever: then none may be.
export function taint() {
  const guilty = underEvaluation.length > 0 ? underEvaluation : ObjectKeys(records);
  for (let index = 0; index < guilty.length; index++) tainted[guilty[index]] = true;
}

// CommonJS modules that are evaluated by runs, where the snapshot holds what they require.
const awaited = { __proto__: null };

function moduleOf(number) {
  const known = records[number]?.module ?? awaited[number];
  if (known !== undefined) return known;
  const { 4: filename, 5: dirname } = compile(number);
  return awaited[number] = newModule(filename, dirname);
}

// Evaluates modules for a snapshot, and no others: for each its number, and that of the one which requires it or -1.
export function evaluateAhead(numbers) {
  const wanted = { __proto__: null };
  for (let index = 0; index < numbers.length; index += 2) wanted[numbers[index]] = true;
  for (let index = 0; index < numbers.length; index += 2) {
    const { [index]: number, [index + 1]: parent } = numbers;
    if (records[number] === undefined) evaluate(number, parent < 0 ? undefined : moduleOf(parent));
  }
  for (const number of ObjectKeys(records)) {
    if (!wanted[number]) throw new Error(`A module that was not wanted was evaluated, too: ${number}`);
  }
  order.length = 0;
}

// Evaluates what can be of the modules with these numbers.
export function evaluateIfPossible(numbers) {
  for (let index = 0; index < numbers.length; index++) {
    if (records[numbers[index]] !== undefined) continue;
    try {
      evaluate(numbers[index]);
    } catch {
      // Its run will see the same.
    }
  }
}

// The exports of an adaptor by its number in the pack.
export function adaptor(number) {
  return namespaceOf([MODULE, number]);
}

// ---------------------------------------------------------------------------------------------------------------
// Jobs
// ---------------------------------------------------------------------------------------------------------------

// What a job imports besides adaptors; `isolate::job_function` knows the numbers.
const RUNTIME = -1;
const SCOPE = -2;

for (const name of ObjectKeys(runtime)) ObjectFreeze(runtime[name]);

// Evaluates a job that is a function. `imports` are the numbers of its adaptors' modules, and the two above.
export function evaluateJob(compiled, imports) {
  const { 0: operations, 1: execute } = compiled((slot) => imported(imports[slot]));
  return { __proto__: null, default: operations, execute };
}

function imported(number) {
  if (number === RUNTIME) return runtime;
  return number === SCOPE ? scope() : namespaceOf([MODULE, number]);
}

// What `globalThis` means in a job: an object that offers the names a job may use anyway, and nothing else.
let scopeNamespace;
function scope() {
  if (scopeNamespace === undefined) {
    const names = { __proto__: null };
    for (const name of op_fnhost_scope_names()) {
      if (name in globalThis) ObjectDefineProperty(names, name, getter(() => globalThis[name]));
    }
    scopeNamespace = ObjectFreeze({ __proto__: null, globalThis: ObjectFreeze(names) });
  }
  return scopeNamespace;
}
