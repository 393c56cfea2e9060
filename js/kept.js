// Isolates that are kept for further runs: what must be the same after a run as before it.
//
// Loaded into such an isolate before its first run. What a run changed is never put back: the isolate is dropped then.
// Only what ends by itself or can be ended for good, such as a socket, is ended.

import { core, internals, primordials } from "ext:core/mod.js";
import { forgetRun, keepCode, ownsNodeCache, usedBuiltins } from "ext:fnhost/modules.js";

const {
  ArrayPrototypePush,
  Error,
  FunctionPrototypeBind,
  ObjectDefineProperty,
  ObjectFreeze,
  ObjectGetPrototypeOf,
  ObjectIsExtensible,
  ObjectPrototypePropertyIsEnumerable,
  ReflectApply,
  ReflectConstruct,
  ReflectGetOwnPropertyDescriptor,
  ReflectOwnKeys,
  RegExpPrototypeTest,
  SafeSet,
  SafeWeakSet,
  String,
  Symbol,
} = primordials;

const { getOwnPropertySymbols } = Object;
const { hasOwn, is } = Object;
const { clearTimeout, performance } = globalThis;

// What the last run did that no look at objects would tell.
let left;

// ---------------------------------------------------------------------------------------------------------------
// Sockets
// ---------------------------------------------------------------------------------------------------------------

// Those of the Node layer; Rust sees to all others.
const sockets = new SafeSet();

function followSockets() {
  const { subscribe } = core.createLazyLoader("node:diagnostics_channel")().default;
  subscribe("net.client.socket", ({ socket }) => sockets.add(socket));
}

// Ends the connections that the run left open.
export function closeSockets() {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
}

// ---------------------------------------------------------------------------------------------------------------
// Built-ins and globals
// ---------------------------------------------------------------------------------------------------------------

// Parallel lists: an object that must stay as it is, its prototype, its keys and their values.
const objects = [];
const prototypes = [];
const keys = [];
const values = [];
const symbols = [];
const accessors = [];
const seen = new SafeSet();
const watched = new SafeWeakSet();

// A function that nobody has a reason to change: a method.
function isPlainFunction(value, names) {
  return typeof value === "function" && names.length === 2 && names[0] === "length" && names[1] === "name";
}

function remember(object) {
  if (object === null || (typeof object !== "object" && typeof object !== "function")) return;
  if (seen.has(object) || core.isProxy(object)) return;
  seen.add(object);
  const names = ReflectOwnKeys(object);
  if (isPlainFunction(object, names)) {
    ObjectFreeze(object);
    return;
  }
  const prototype = ObjectGetPrototypeOf(object);
  remember(prototype);
  const own = [];
  const held = [];
  const computed = [];
  for (const name of names) {
    const property = ReflectGetOwnPropertyDescriptor(object, name);
    if (property === undefined) continue;
    if (hasOwn(property, "value")) {
      remember(property.value);
      if (property.writable || property.configurable) {
        ArrayPrototypePush(own, name);
        ArrayPrototypePush(held, property.value);
      }
    } else {
      remember(property.get);
      remember(property.set);
      if (property.configurable) ArrayPrototypePush(computed, name);
    }
  }
  watched.add(object);
  ArrayPrototypePush(objects, object);
  ArrayPrototypePush(prototypes, prototype);
  ArrayPrototypePush(keys, own);
  ArrayPrototypePush(values, held);
  ArrayPrototypePush(accessors, computed);
  ArrayPrototypePush(symbols, getOwnPropertySymbols(object).length);
}

function describe(object, name) {
  const { constructor } = object;
  const of = typeof object === "function" ? object.name : constructor?.name;
  return `${object === globalThis ? "globalThis" : of}.${String(name)}`;
}

// What differs, in words.
export function compare() {
  for (let index = 0; index < objects.length; index++) {
    const object = objects[index];
    const own = keys[index];
    const held = values[index];
    for (let at = 0; at < own.length; at++) {
      if (object[own[at]] !== held[at] && !is(object[own[at]], held[at])) return describe(object, own[at]);
    }
    const computed = accessors[index];
    for (let at = 0; at < computed.length; at++) {
      if (!hasOwn(object, computed[at])) return describe(object, computed[at]);
    }
    if (ObjectGetPrototypeOf(object) !== prototypes[index] || !ObjectIsExtensible(object)) {
      return describe(object, "__proto__");
    }
    if (getOwnPropertySymbols(object).length !== symbols[index]) return describe(object, "[Symbol]");
  }
  return undefined;
}

export function prepare(isolation) {
  keepCode();
  if (isolation === 1) {
    followSockets();
    remember(globalThis);
    for (const namespace of usedBuiltins()) remember(namespace.default);
  }
  return objects.length;
}

export function count() {
  let properties = 0;
  for (const own of keys) properties += own.length;
  let computed = 0;
  for (const own of accessors) computed += own.length;
  return `${objects.length} objects, ${properties} values, ${computed} accessors, ${seen.size} seen`;
}

export function clearUp(isolation) {
  if (isolation === 1) forgetRun();
  globalThis.state = undefined;
  return isolation === 1 ? compare() : undefined;
}
