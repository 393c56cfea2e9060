// package: @openfn/language-http
// does: GET, POST of JSON and a form, gzip, a redirect, basic auth, an error's status
fn(state => {
  const { http } = state.configuration;
  return { ...state, configuration: { baseUrl: http, username: 'nurse', password: 'cr3dential-of-the-nurse' } };
});
get('/gzip', { parseAs: 'json' });
fn(state => {
  same(state.data.patients.length, 2);
  return state;
});
post('/echo', { name: 'Amina' });
fn(state => {
  same([state.data.method, state.data.body], ['POST', '{"name":"Amina"}']);
  return state;
});
post('/echo', { name: 'Amina' }, { contentType: 'form' });
fn(state => {
  same([state.data.headers['content-type'].startsWith('multipart/form-data'), state.data.body.includes('Amina')], [true, true]);
  return state;
});
get('/redirect?to=/patients');
fn(state => {
  same(state.data.patients[0], { name: 'Amina' });
  return state;
});
get('/basic');
fn(state => {
  same(state.data.user, 'nurse');
  return state;
});
get('/status/404').catch((error, state) => {
  same(error.statusCode, 404);
  return state;
});
