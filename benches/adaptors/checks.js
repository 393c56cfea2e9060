// Put behind every case, which may use these to look at what it got.

function same(actual, expected) {
  const [got, wanted] = [actual, expected].map(value => JSON.stringify(value));
  if (got !== wanted) throw new Error(`expected ${wanted}, got ${got}`);
}

async function failure(attempt) {
  let result;
  try {
    result = await attempt();
  } catch (error) {
    return error;
  }
  throw new Error(`expected a failure, got ${JSON.stringify(result)}`);
}

// What arrived at the case's service, in order.
async function seen(service) {
  return (await fetch(`${service}/seen`)).json();
}
