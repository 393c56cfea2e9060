// After patients were registered: says so, in a message that fits on a phone.

fn(state => {
  const names = state.data.entry.map(({ resource }) => resource.name[0].family).sort();
  const text = names.length ? `Registered ${names.length}: ${uniq(names).join(', ')}` : 'Nobody was registered';
  console.log(text);
  return { data: { text } };
});

function uniq(names) {
  return names.filter((name, index) => names.indexOf(name) === index);
}
