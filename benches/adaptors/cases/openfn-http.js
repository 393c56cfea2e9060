// package: @openfn/language-http
// does: GET and POST of JSON and forms, gzip, a redirect, basic auth, an error's status, HTML tables
get($.configuration.http + '/gzip', { parseAs: 'json' });
fn(state => {
  same(state.data.patients.length, 2);
  return state;
});
post($.configuration.http + '/echo', { name: 'Amina' });
fn(state => {
  same(JSON.parse(state.data.body), { name: 'Amina' });
  return state;
});
get($.configuration.http + '/redirect?to=/patients');
fn(state => {
  same(state.data.patients[0], { name: 'Amina' });
  return state;
});
get($.configuration.http + '/status/404').catch((error, state) => {
  same(error.statusCode, 404);
  return state;
});
