// package: @openfn/language-openmrs@5.5.0
// does: gets a patient
fn(state => ({ ...state, configuration: { instanceUrl: state.configuration.http + '/echo', username: 'nurse', password: 'secret' } }));
http.get('/ws/rest/v1/patient/1');
fn(state => {
  same([state.data.path, state.data.headers.authorization], ['/echo/ws/rest/v1/patient/1', 'Basic bnVyc2U6c2VjcmV0']);
  return state;
});
