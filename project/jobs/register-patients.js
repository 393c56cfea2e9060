// Turns a clinic's list of patients into a FHIR bundle that a registry would accept as it is.

const genders = { F: 'female', M: 'male' };

function capitalise(name) {
  const trimmed = name.trim().toLowerCase();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
}

fn(state => {
  const complete = state.data.patients.filter(patient => patient.id && patient.born);
  console.log(`${complete.length} of ${state.data.patients.length} patients are complete`);
  return { ...state, complete, entries: [] };
});

each(
  '$.complete[*]',
  fn(state => {
    const patient = state.data;
    const born = dateFns.parse(patient.born, 'dd/MM/yyyy', new Date(0));
    const resource = {
      resourceType: 'Patient',
      ...fields(
        field('identifier', [{ system: 'urn:clinic:patient', value: patient.id }]),
        field('name', [{ family: capitalise(patient.family), given: [capitalise(patient.given)] }]),
        field('gender', genders[patient.sex] ?? 'unknown'),
        field('birthDate', dateFns.format(born, 'yyyy-MM-dd')),
      ),
    };
    if (patient.phone) resource.telecom = [{ system: 'phone', value: patient.phone.replaceAll(' ', '') }];
    const request = { method: 'PUT', url: `Patient?identifier=${patient.id}` };
    state.entries.push({ resource, request });
    return state;
  }),
);

fn(({ entries }) => ({ data: { resourceType: 'Bundle', type: 'transaction', entry: entries } }));
