// What a job gets from `@openfn/runtime`. The compiler imports these names by itself; jobs rarely write them.

// `op().then(f)` at the top of a job compiles to `defer(op(), p => p.then(f))`: the chain hangs on the operation's
// result, not on the operation itself. `onError` sits directly on the operation, before the rest of the chain.
export function defer(operation, complete = (promise) => promise, onError) {
  return async (state) => {
    let promise = (async () => operation(state))();
    if (onError) promise = promise.catch((error) => onError(error, state));
    return await complete(promise, state);
  };
}

export function execute(...operations) {
  return async (state) => {
    for (const operation of operations) state = await operation(state);
    return state;
  };
}

export const fn = (func) => (state) => func(state);

// The name `fn` had in older adaptors.
export const alterState = fn;
