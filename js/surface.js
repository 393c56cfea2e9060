// What runs share at the level `module`, and how it is kept as it was.
//
// Modules of packages are evaluated anew in each run (`modules.js`). What they find around them is the same for all runs
// of an isolate: the global scope, the language's built-ins, Node's modules. Here is how it looked before the first run,
// and after each run it is made to look so again. What cannot be put back is told, and then the isolate is not used again.
//
// A look at every property takes too long. So functions that are only to be called are frozen, and other functions and
// prototypes *sealed*: nothing can be added to them, taken from them or defined otherwise, and what is left to compare are
// values, in generated code. Where programs do add something, as to `Array.prototype`, names are counted as well. What has
// no properties, as a list in a variable of the runtime, cannot be compared at all: that a function was called which
// changes such a thing is remembered.

import { core, primordials } from "ext:core/mod.js";
import { builtin, guardBuiltins, keepCompiled } from "ext:fnhost/modules.js";
import * as runtime from "ext:fnhost/runtime.js";

const {
  ArrayPrototypeEvery,
  ArrayPrototypeIncludes,
  ArrayPrototypeJoin,
  ArrayPrototypeMap,
  ArrayPrototypePush,
  ArrayPrototypeSlice,
  ArrayPrototypeSome,
  Function,
  FunctionPrototypeCall,
  JSONStringify,
  ObjectDefineProperty,
  ObjectFreeze,
  ObjectGetOwnPropertyDescriptor,
  ObjectGetPrototypeOf,
  ObjectHasOwn,
  ObjectIs,
  ObjectIsFrozen,
  ObjectKeys,
  ObjectSeal,
  Proxy,
  ReflectApply,
  ReflectConstruct,
  ReflectDefineProperty,
  ReflectDeleteProperty,
  ReflectOwnKeys,
  ReflectSet,
  ReflectSetPrototypeOf,
  RegExpPrototypeExec,
  SafeMap,
  SafeSet,
  String,
  StringPrototypeEndsWith,
  StringPrototypeStartsWith,
  SymbolFor,
  SymbolToStringTag,
} = primordials;

// Built-ins that programs do add to.
const EXTENDED = [
  "Array",
  "Date",
  "Error",
  "Function",
  "Math",
  "Number",
  "Object",
  "Promise",
  "Reflect",
  "String",
  "Symbol",
];

// Node's modules of which nothing else remembers anything. An isolate in which another one was loaded is not used again.
const WATCHED_PARTS = [
  "assert",
  "assert/strict",
  "async_hooks",
  "buffer",
  "child_process",
  "console",
  "constants",
  "crypto",
  "diagnostics_channel",
  "dns",
  "dns/promises",
  "events",
  "fs",
  "fs/promises",
  "http",
  "http2",
  "https",
  "module",
  "net",
  "os",
  "path",
  "path/posix",
  "path/win32",
  "perf_hooks",
  "process",
  "punycode",
  "querystring",
  "readline",
  "stream",
  "stream/promises",
  "stream/web",
  "string_decoder",
  "sys",
  "timers",
  "timers/promises",
  "tls",
  "tty",
  "url",
  "util",
  "util/types",
  "vm",
  "worker_threads",
  "zlib",
];

// Functions of Node's modules whose effect lasts and has no property.
const LASTING = {
  __proto__: null,
  "node:async_hooks": ["createHook"],
  "node:crypto": ["setEngine", "setFips"],
  "node:dns": ["setDefaultResultOrder", "setServers"],
  "node:dns/promises": ["setDefaultResultOrder", "setServers"],
  "node:module": ["register", "registerHooks"],
  "node:net": ["setDefaultAutoSelectFamily", "setDefaultAutoSelectFamilyAttemptTimeout"],
  "node:perf_hooks": ["PerformanceObserver"],
  "node:process": ["getBuiltinModule", "setUncaughtExceptionCaptureCallback"],
  "node:stream": ["setDefaultHighWaterMark"],
  "node:tls": ["setDefaultCACertificates"],
  "node:worker_threads": ["BroadcastChannel", "MessageChannel", "setEnvironmentData"],
};

// Where undici keeps the client that all copies of it shall use, so that it cannot be deleted. It is there, as undefined,
// before the first run.
const DISPATCHERS = ["undici.globalDispatcher.1", "undici.globalDispatcher.2"];

// ---------------------------------------------------------------------------------------------------------------
// What there is
// ---------------------------------------------------------------------------------------------------------------

// All objects that were looked at.
const known = new SafeSet();

// Functions and prototypes that programs do add to.
const open = new SafeSet();

// What stands behind the proxies that are made here.
const behind = new SafeMap();

// Of each set of objects that came to be known together: a function that tells whether all is as it was, and its parts.
const surfaces = [];

// Values that only an accessor shows.
const settings = [];

// What the run did that cannot be put back.
let trace;

const isObject = (value) => typeof value === "function" || (typeof value === "object" && value !== null);

// Takes note of these objects and of all that they lead to.
function admit(roots) {
  const queue = [];
  const meet = (value) => {
    const object = behind.get(value) ?? value;
    if (!isObject(object) || core.isProxy(object) || core.isTypedArray(object) || known.has(object)) return;
    known.add(object);
    ArrayPrototypePush(queue, object);
  };
  const surface = { comparisons: [], names: [], accessors: [] };
  for (let at = 0; at < roots.length; at++) meet(roots[at]);
  for (let at = 0; at < queue.length; at++) {
    const object = queue[at];
    const keys = ReflectOwnKeys(object);
    if (core.isModuleNamespaceObject(object)) {
      for (let at = 0; at < keys.length; at++) meet(object[keys[at]]);
      continue;
    }
    const descriptors = ArrayPrototypeMap(keys, (key) => ObjectGetOwnPropertyDescriptor(object, key));
    meet(ObjectGetPrototypeOf(object));
    for (let at = 0; at < descriptors.length; at++) {
      const { value, get, set } = descriptors[at];
      meet(value);
      meet(get);
      meet(set);
    }
    note(surface, object, keys, descriptors, meet);
  }
  surface.isUnchanged = generate(surface.comparisons);
  ArrayPrototypePush(surfaces, surface);
}

function note(surface, object, keys, descriptors, meet) {
  if (ObjectIsFrozen(object)) return;
  const isOpen = open.has(object) || !canBeSealed(object, descriptors);
  if (isOpen) ArrayPrototypePush(surface.names, { object, keys, prototype: ObjectGetPrototypeOf(object) });
  else if (freezePlain(object, keys)) return;
  else ObjectSeal(object);
  for (let at = 0; at < keys.length; at++) {
    const key = keys[at];
    const { value, writable, get, set } = descriptors[at];
    if (get === undefined && set === undefined) {
      if (writable) ArrayPrototypePush(surface.comparisons, { object, key, value });
    } else if (isOpen) {
      ArrayPrototypePush(surface.accessors, { object, key, descriptor: descriptors[at] });
    }
    if (get !== undefined && set !== undefined && typeof object === "function") meet(noteSetting(object, key));
  }
}

// A function that has nothing but what every function has. Returns false of any other object.
function freezePlain(object, keys) {
  if (typeof object !== "function") return false;
  if (!ArrayPrototypeEvery(keys, (key) => ArrayPrototypeIncludes(PLAIN, key))) return false;
  const { value: prototype } = ObjectGetOwnPropertyDescriptor(object, "prototype") ?? { __proto__: null };
  if (isObject(prototype)) {
    if (ReflectOwnKeys(prototype).length !== 1 || prototype.constructor !== object) return false;
    ObjectFreeze(prototype);
  }
  ObjectFreeze(object);
  return true;
}

const PLAIN = ["arguments", "caller", "length", "name", "prototype"];

// What was set through an accessor, such as `EventEmitter.defaultMaxListeners`. Returns its value.
function noteSetting(object, key) {
  // The last match, which is put back otherwise.
  if (object === RegExpConstructor) return undefined;
  try {
    const value = object[key];
    ArrayPrototypePush(settings, { object, key, value });
    return value;
  } catch {
    // It is none of this object, but of those that inherit from it.
    return undefined;
  }
}

const RegExpConstructor = globalThis.RegExp;

// Whether programs do not add to it: functions, prototypes, namespaces as `Intl`, and lists of constants.
function canBeSealed(object, descriptors) {
  if (typeof object === "function" || ObjectHasOwn(object, SymbolToStringTag)) return true;
  const constructor = ObjectGetOwnPropertyDescriptor(object, "constructor")?.value;
  if (typeof constructor === "function" && constructor.prototype === object) return true;
  const isConstant = ({ value, get, set }) => !isObject(value) && get === undefined && set === undefined;
  return descriptors.length > 0 && ArrayPrototypeEvery(descriptors, isConstant);
}

// Comparisons that one generated function makes.
const PER_FUNCTION = 150;

// A function that tells whether all these properties have their values. Each is read in a place of its own in the code, so
// that V8 reads it at once.
function generate(comparisons) {
  const parts = [];
  for (let start = 0; start < comparisons.length; start += PER_FUNCTION) {
    const objects = [];
    const numbers = new SafeMap();
    const values = [];
    const keys = [];
    const conditions = [];
    for (let at = start; at < comparisons.length && at < start + PER_FUNCTION; at++) {
      const { object, key, value } = comparisons[at];
      let number = numbers.get(object);
      if (number === undefined) {
        number = ArrayPrototypePush(objects, object) - 1;
        numbers.set(object, number);
      }
      const name = typeof key === "string" ? JSONStringify(key) : `k[${ArrayPrototypePush(keys, key) - 1}]`;
      const now = `o${number}[${name}]`;
      const was = `v[${ArrayPrototypePush(values, value) - 1}]`;
      ArrayPrototypePush(conditions, ObjectIs(value, NaN) ? `${now}!==${now}` : `${now}===${was}`);
    }
    const names = ArrayPrototypeJoin(ArrayPrototypeMap(objects, (_, number) => `o${number}=o[${number}]`), ",");
    const body = `"use strict";const ${names};return()=>${ArrayPrototypeJoin(conditions, "&&")}`;
    ArrayPrototypePush(parts, new Function("o", "k", "v", body)(objects, keys, values));
  }
  return () => {
    for (let at = 0; at < parts.length; at++) {
      if (!parts[at]()) return false;
    }
    return true;
  };
}

// ---------------------------------------------------------------------------------------------------------------
// After a run
// ---------------------------------------------------------------------------------------------------------------

// Makes everything as it was. Otherwise returns what is not.
export function putBack() {
  forgetMatch();
  clearTimeline();
  try {
    removeListeners();
    for (let at = 0; at < surfaces.length; at++) {
      const { isUnchanged, comparisons, names, accessors } = surfaces[at];
      for (let at = 0; at < accessors.length; at++) putAccessorBack(accessors[at]);
      if (!isUnchanged()) putValuesBack(comparisons);
      // What was taken away is there again, so that more names are those that were added.
      for (let at = 0; at < names.length; at++) putNamesBack(names[at]);
    }
    for (let at = 0; at < settings.length; at++) {
      const { object, key, value } = settings[at];
      if (!ObjectIs(object[key], value)) putValueBack(settings[at]);
    }
  } catch (error) {
    trace ??= `it could not be looked at what the run had changed: ${error}`;
  }
  const result = trace;
  trace = undefined;
  run += 1;
  return result;
}

// What the last match was, of whichever expression, is to be had from `RegExp.$1` and its like.
function forgetMatch() {
  RegExpPrototypeExec(/(?:)/, "");
}

// The process counts its listeners in variables, too.
function removeListeners() {
  const { process, events, listeners, removeListener } = processListeners;
  if (process._events !== events) {
    trace ??= "the run replaced the listeners of the process";
    return;
  }
  const names = ReflectOwnKeys(events);
  for (let at = 0; at < names.length; at++) {
    const name = names[at];
    if (events[name] === listeners[name]) continue;
    const now = listOf(events[name]);
    const before = listOf(listeners[name]);
    for (let at = 0; at < now.length; at++) {
      if (!ArrayPrototypeIncludes(before, now[at])) FunctionPrototypeCall(removeListener, process, name, now[at]);
    }
  }
}

// Listeners of an event as Node keeps them: none, one, or an array.
function listOf(listeners) {
  if (listeners === undefined) return [];
  return typeof listeners === "function" ? [listeners] : ArrayPrototypeSlice(listeners);
}

function putNamesBack({ object, keys, prototype }) {
  if (ObjectGetPrototypeOf(object) !== prototype && !ReflectSetPrototypeOf(object, prototype)) {
    trace ??= "the run changed what an object inherits from";
  }
  const now = ReflectOwnKeys(object);
  if (now.length === keys.length) return;
  for (let at = 0; at < now.length; at++) {
    const key = now[at];
    if (!ArrayPrototypeIncludes(keys, key) && !ReflectDeleteProperty(object, key)) {
      trace ??= `the run added ${String(key)} to what all share`;
    }
  }
  if (ReflectOwnKeys(object).length !== keys.length) trace ??= "the run took something away from what all share";
}

function putAccessorBack({ object, key, descriptor }) {
  const now = ObjectGetOwnPropertyDescriptor(object, key);
  if (now !== undefined && now.get === descriptor.get && now.set === descriptor.set) return;
  if (!ReflectDefineProperty(object, key, descriptor)) trace ??= `the run replaced ${String(key)}`;
}

function putValuesBack(comparisons) {
  for (let at = 0; at < comparisons.length; at++) {
    const { object, key, value } = comparisons[at];
    if (!ObjectIs(object[key], value)) putValueBack(comparisons[at]);
  }
}

function putValueBack({ object, key, value }) {
  const isThere = ObjectHasOwn(object, key);
  const isBack = isThere ? ReflectSet(object, key, value) : ReflectDefineProperty(object, key, plain(value));
  if (!isBack || !ObjectIs(object[key], value)) trace ??= `the run changed ${String(key)} for all`;
}

const plain = (value) => ({ __proto__: null, value, writable: true, enumerable: true, configurable: true });

// ---------------------------------------------------------------------------------------------------------------
// What a run leaves open
// ---------------------------------------------------------------------------------------------------------------

const connections = new SafeSet();

// What ends one of them.
let destroy;

// Ends connections and timers of the run, also those that keep no event loop alive. If there were any, returns what,
// and their ends are to be waited for.
export function close() {
  const { size } = connections;
  for (const socket of connections) {
    connections.delete(socket);
    FunctionPrototypeCall(destroy, socket);
  }
  const timers = listTimers();
  for (let at = 0; at < timers.length; at++) cancel(timers[at]);
  const left = timers.length > 0 ? listTimers().length : 0;
  restarted.clear();
  if (left > 0) trace ??= "the run left a timer of the runtime's own";
  if (size > 0) return "connections";
  return timers.length > left ? "timers" : undefined;
}

const loadNodeTimers = () => core.loadExtScript("ext:deno_node/internal/timers.mjs");
const loadWebTimers = () => core.loadExtScript("ext:deno_web/02_timers.js");

function cancel(number) {
  const { getActiveTimer, kDestroy } = loadNodeTimers();
  const timer = getActiveTimer(number);
  if (timer !== undefined) return timer[kDestroy]();
  const again = restarted.get(number);
  if (again !== undefined) return core.cancelTimer(again);
  // As a function, which wants no object.
  const { clearTimeout } = loadWebTimers();
  clearTimeout(number);
}

// Timers of the run that were started again, by number. One that does so when it fires, as clients for HTTP have it, is gone
// from Node's list afterwards, and fires all the same.
const restarted = new SafeMap();

function watchTimers() {
  const timer = globalThis.setTimeout(() => {}, 0);
  globalThis.clearTimeout(timer);
  const prototype = ObjectGetPrototypeOf(timer);
  const { refresh } = prototype;
  prototype.refresh = function () {
    const result = FunctionPrototypeCall(refresh, this);
    const { _timer: started } = this;
    restarted.set(started._timerId, started);
    return result;
  };
}

function watchConnections(prototype) {
  const { connect, once } = prototype;
  destroy = prototype.destroy;
  const forget = function () {
    connections.delete(this);
  };
  prototype.connect = function (...values) {
    connections.add(this);
    FunctionPrototypeCall(once, this, "close", forget);
    return ReflectApply(connect, this, values);
  };
}

// The number of runs so far. What a run arranged for is not done in another one.
let run = 0;

// Calls back when something is gone, which may be in any run: then only in the one that asked for it.
function guardFinalizers() {
  const Original = globalThis.FinalizationRegistry;
  const guarded = new Proxy(Original, {
    __proto__: null,
    construct(target, values, constructor) {
      const { 0: cleanUp } = values;
      const owner = run;
      const guard = (held) => owner === run ? cleanUp(held) : undefined;
      return ReflectConstruct(target, [typeof cleanUp === "function" ? guard : cleanUp], constructor);
    },
  });
  behind.set(guarded, Original);
  Original.prototype.constructor = guarded;
  globalThis.FinalizationRegistry = guarded;
}

// ---------------------------------------------------------------------------------------------------------------
// Libraries
// ---------------------------------------------------------------------------------------------------------------

// Large packages that adaptors evaluate whenever they load, and that keep nothing but by the functions named here: by the
// end of their main file's path. All runs share one that was evaluated once, until a run calls such a function.
const LIBRARIES = { __proto__: null, "/node_modules/lodash/lodash.js": ["uniqueId"] };

// Says of a module that was just evaluated whether the next run may have it. `letGo` is called when that is over.
function share(filename, exports, letGo) {
  const names = ObjectKeys(LIBRARIES);
  for (let at = 0; at < names.length; at++) {
    if (!StringPrototypeEndsWith(filename, names[at])) continue;
    const keeping = LIBRARIES[names[at]];
    for (let at = 0; at < keeping.length; at++) rememberUse(filename, exports, keeping[at], letGo);
    admit([exports]);
    return true;
  }
  return false;
}

// ---------------------------------------------------------------------------------------------------------------
// Before the first run
// ---------------------------------------------------------------------------------------------------------------

// Gives the numbers of all timers.
let listTimers;

// Takes away what runs have measured.
let clearTimeline;

// The process and its listeners before the first run.
let processListeners;

// From now on, everything that runs find is as it is now.
export function begin(timers) {
  listTimers = timers;
  keepCompiled(share);
  for (const name of DISPATCHERS) {
    ObjectDefineProperty(globalThis, SymbolFor(name), { ...plain(undefined), enumerable: false });
  }
  guardFinalizers();
  rememberUse("URL", globalThis.URL, "createObjectURL");
  const { performance } = globalThis;
  const { clearMarks, clearMeasures } = performance;
  clearTimeline = () => {
    FunctionPrototypeCall(clearMarks, performance);
    FunctionPrototypeCall(clearMeasures, performance);
  };
  const { process } = globalThis;
  const { _events: events, removeListener } = process;
  processListeners = { process, events, listeners: { __proto__: null, ...events }, removeListener };
  open.add(globalThis);
  open.add(process);
  for (const name of EXTENDED) {
    open.add(globalThis[name]);
    if (globalThis[name].prototype !== undefined) open.add(globalThis[name].prototype);
  }
  loadParts();
  guardBuiltins(guardPart);
  watchTimers();
  for (const key of ReflectOwnKeys(globalThis)) admitWhenRead(key);
  admit([globalThis, runtime, ...hidden()]);
  for (const key of ["exitCode", "title"]) noteSetting(process, key);
  forgetMatch();
}

// Some parts put something into others when they are loaded, which shall be no run's doing.
function loadParts() {
  const parts = { __proto__: null };
  for (const part of WATCHED_PARTS) parts[`node:${part}`] = core.createLazyLoader(`node:${part}`)().default;
  for (const name of ObjectKeys(LASTING)) {
    for (const key of LASTING[name]) rememberUse(name, parts[name], key);
  }
  const { Channel } = parts["node:diagnostics_channel"];
  for (const key of ["bindStore", "subscribe"]) rememberUse("node:diagnostics_channel", Channel.prototype, key);
  const { Server, Socket } = parts["node:net"];
  rememberUse("node:net", Server.prototype, "listen");
  watchConnections(Socket.prototype);
  admitWhenRequired(parts["node:module"]);
}

// Prototypes that no name leads to.
function hidden() {
  const { clearImmediate, clearTimeout, setImmediate, setTimeout } = globalThis;
  const timers = [setTimeout(() => {}, 0), setImmediate(() => {})];
  clearTimeout(timers[0]);
  clearImmediate(timers[1]);
  const functions = [function* () {}, async () => {}, async function* () {}];
  const iterators = [[].values(), new Map().keys(), new Set().keys(), "".matchAll(/x/g), ""[Symbol.iterator]()];
  return ArrayPrototypeMap([...timers, ...functions, ...iterators], (value) => ObjectGetPrototypeOf(value));
}

// A part of the runtime that is loaded when a name of the global scope is first read.
function admitWhenRead(key) {
  const descriptor = ObjectGetOwnPropertyDescriptor(globalThis, key);
  const { get, set } = descriptor;
  if (get === undefined || !descriptor.configurable || key === "eval") return;
  let isKnown = false;
  const read = function () {
    const value = FunctionPrototypeCall(get, this);
    if (!isKnown) {
      isKnown = true;
      admit([value]);
    }
    return value;
  };
  ObjectDefineProperty(globalThis, key, { ...descriptor, get: read, set });
}

// What there is to see of parts of the Node layer.
const shown = { __proto__: null };

// A part of the Node layer, before anybody else sees it. Returns what they shall see.
function guardPart(name, namespace) {
  return shown[name] ??= lookAtPart(name, namespace);
}

function lookAtPart(name, namespace) {
  const isWatched = ArrayPrototypeSome(WATCHED_PARTS, (part) => name === `node:${part}`);
  if (!isWatched) trace ??= `the run loaded ${name}`;
  const { default: part } = namespace;
  if (isObject(part)) {
    open.add(part);
    if (isObject(part.globalAgent)) open.add(part.globalAgent.options);
  }
  admit([namespace]);
  const lasting = LASTING[name];
  return lasting === undefined ? namespace : withUse(namespace, part, lasting);
}

// A namespace that has these functions from the default export.
function withUse(namespace, part, lasting) {
  const copy = { __proto__: null };
  const keys = ObjectKeys(namespace);
  for (let at = 0; at < keys.length; at++) {
    const key = keys[at];
    copy[key] = ArrayPrototypeIncludes(lasting, key) ? part[key] : namespace[key];
  }
  ObjectDefineProperty(copy, SymbolToStringTag, { __proto__: null, value: "Module" });
  return ObjectFreeze(copy);
}

// Node's own loader gives parts out past `modules.js`.
function admitWhenRequired(Module) {
  const { _load: load, isBuiltin } = Module;
  Module._load = function (request, ...rest) {
    if (isBuiltin(request)) builtin(StringPrototypeStartsWith(request, "node:") ? request : `node:${request}`);
    return ReflectApply(load, this, [request, ...rest]);
  };
}

// Replaces a function by one of which it is known that it was used.
function rememberUse(owner, object, key, used = () => trace ??= `the run used ${key} of ${owner}`) {
  const original = object[key];
  if (typeof original !== "function") return;
  const watched = new Proxy(original, {
    __proto__: null,
    apply(target, self, values) {
      used();
      return ReflectApply(target, self, values);
    },
    construct(target, values, constructor) {
      used();
      return ReflectConstruct(target, values, constructor);
    },
  });
  behind.set(watched, original);
  object[key] = watched;
}
