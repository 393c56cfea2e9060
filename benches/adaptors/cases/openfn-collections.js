// package: @openfn/language-collections
// does: sets an item, gets one, walks through all, removes one, all against a stand-in
// answers: POST /collections/visits 200 {"upserted":1}
// answers: GET /collections/visits/one 200 {"key":"one","value":"{\"n\":1}"}
// answers: GET /collections/visits 200 {"items":[{"key":"one","value":"{\"n\":1}"},{"key":"two","value":"{\"n\":2}"}],"cursor":null}
// answers: DELETE /collections/visits/one 200 {"deleted":1}
fn(state => {
  const { service } = state.configuration;
  return { ...state, service, configuration: { collections_endpoint: `${service}/collections`, collections_token: 'token' } };
});
collections.set('visits', 'one', { n: 1 });
collections.get('visits', 'one');
fn(state => {
  same(state.data, { n: 1 });
  return state;
});
collections.each('visits', '*', (state, value, key) => {
  (state.walked ??= []).push([key, value.n]);
});
collections.remove('visits', 'one');
fn(async state => {
  same(state.walked, [['one', 1], ['two', 2]]);
  const [set, , , removed] = await seen(state.service);
  same([set.headers.authorization, JSON.parse(set.body).items], ['Bearer token', [{ key: 'one', value: '{"n":1}' }]]);
  same([removed.method, removed.path], ['DELETE', '/collections/visits/one']);
  return state;
});
