// package: @openfn/language-openmrs@5.5.0
// does: gets and creates a patient, an error's status, all against a stand-in
// answers: GET /ws/rest/v1/patient/1 200 {"uuid":"1","display":"Amina"}
// answers: POST /ws/rest/v1/patient 201 {"uuid":"2"}
// answers: GET /ws/rest/v1/patient/absent 404 {"error":{"message":"Object with given uuid doesn't exist"}}
fn(state => {
  const { service } = state.configuration;
  return { ...state, service, configuration: { instanceUrl: service, username: 'nurse', password: 'secret' } };
});
get('patient/1', { singleton: true });
fn(state => {
  same(state.data.display, 'Amina');
  return state;
});
create('patient', { person: { gender: 'F' } });
fn(state => {
  same(state.data.uuid, '2');
  return state;
});
get('patient/absent').catch((error, state) => {
  same(error.statusCode, 404);
  return state;
});
fn(async state => {
  const [read, created] = await seen(state.service);
  same([read.headers.authorization, JSON.parse(created.body)], [`Basic ${btoa('nurse:secret')}`, { person: { gender: 'F' } }]);
  return state;
});
