// package: npm:fhir@4
// behind: fhir-4, and through it ihris, opencrvs, santempi and others
// does: a resource into XML and back, checks one, evaluates a path
import fhir from 'fhir';

export default [
  () => {
    const client = new fhir.Fhir();
    const patient = { resourceType: 'Patient', name: [{ family: 'Mensah', given: ['Amina'] }], birthDate: '1995-03-01' };
    const xml = client.objToXml(patient);
    same([xml.includes('<family value="Mensah"/>'), client.xmlToObj(xml)], [true, patient]);
    same([client.validate(patient).valid, client.validate({ ...patient, birthDate: 'x' }).valid], [true, false]);
    same(client.evaluate(patient, 'Patient.name.given'), 'Amina');
  },
];
