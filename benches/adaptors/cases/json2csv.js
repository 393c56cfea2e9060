// package: npm:json2csv@5.0.7
// behind: bigquery
// does: fields, nested ones and quotes, at once and asynchronously
import json2csv from 'json2csv';

export default [
  async () => {
    const rows = [{ name: 'Amina, "jr."', address: { city: 'Accra' } }, { name: 'Kofi' }];
    const expected = '"name","city"\n"Amina, ""jr.""","Accra"\n"Kofi",';
    const options = { fields: ['name', { label: 'city', value: 'address.city' }] };
    same(json2csv.parse(rows, options), expected);
    same(await json2csv.parseAsync(rows, options), expected);
  },
];
