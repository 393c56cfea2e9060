// package: npm:JSONPath@0.10
// behind: beyonic, cartodb, commcare, magpi, mogli, openhim, telerivet, zoho
// does: paths, filters evaluated as code (node:vm)
import JSONPath from 'JSONPath';

export default [
  () => {
    const json = { visits: [{ place: 'Accra', n: 1 }, { place: 'Tamale', n: 2 }] };
    same(JSONPath.eval(json, '$..place'), ['Accra', 'Tamale']);
    same(JSONPath.eval(json, '$.visits[?(@.n > 1)].place'), ['Tamale']);
    same(JSONPath.eval(json, '$.visits[(@.length-1)].n'), [2]);
  },
];
