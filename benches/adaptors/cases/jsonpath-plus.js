// package: npm:jsonpath-plus@10
// behind: common
// does: paths, filters evaluated as code, in both ways that it has
import { JSONPath } from 'jsonpath-plus';

export default [
  () => {
    const json = { visits: [{ place: 'Accra', n: 1 }, { place: 'Tamale', n: 2 }] };
    same(JSONPath({ path: '$..place', json }), ['Accra', 'Tamale']);
    same(JSONPath({ path: '$.visits[?(@.n > 1)].place', json }), ['Tamale']);
    same(JSONPath({ path: '$.visits[?(@.place.startsWith("A"))].n', json, eval: 'native' }), [1]);
    same(JSONPath({ path: '$.visits[-1:]', json, resultType: 'pointer' }), ['/visits/1']);
  },
];
