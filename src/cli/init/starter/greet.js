// Operations, one after the other. `state.data` is the message; what the last one returns is the final state.
fn(state => {
  const { name } = state.data;
  console.log(`A greeting for ${name}`);
  return { ...state, greeting: `Hello, ${name}!` };
});
