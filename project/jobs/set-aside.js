// After a list could not be registered: keeps it with the reason, for a person to look at.

fn(state => {
  const reasons = Object.values(state.errors ?? {}).map(error => error.message);
  console.warn(`Set aside: ${reasons.join('; ')}`);
  return { data: { list: state.data, reasons } };
});
