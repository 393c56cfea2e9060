// package: npm:lodash-fp@0.10
// behind: beyonic, cartodb, commcare, magpi, mogli, openhim, telerivet, vtiger, zoho
// does: curried functions and their composition
import fp from 'lodash-fp';

export default [
  () => {
    same(fp.compose(fp.sum, fp.map(n => n * 2), fp.filter(n => n > 1))([1, 2, 3]), 10);
    same(fp.mapValues(n => n + 1)({ a: 1 }), { a: 2 });
    same(fp.isEmpty({}), true);
  },
];
