// package: @openfn/language-fhir
// does: creates a resource, gets one
fn(state => ({ ...state, configuration: { baseUrl: state.configuration.http + '/echo', apiPath: 'fhir' } }));
create('Patient', { name: [{ family: 'Mensah' }] });
fn(state => {
  same([state.data.method, state.data.path], ['POST', '/echo/fhir/Patient']);
  same(JSON.parse(state.data.body).name[0].family, 'Mensah');
  return state;
});
get('Patient/1');
fn(state => {
  same(state.data.path, '/echo/fhir/Patient/1');
  return state;
});
