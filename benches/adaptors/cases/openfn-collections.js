// package: @openfn/language-collections
// does: sends an item with its token
fn(state => {
  state.configuration.collections_endpoint = state.configuration.http + '/echo';
  state.configuration.collections_token = 'token';
  return state;
});
collections.set('visits', 'one', { n: 1 });
