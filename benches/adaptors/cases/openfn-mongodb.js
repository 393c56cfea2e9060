// package: @openfn/language-mongodb@2.2.3
// does: every operation is there
// only loads: Debian has no MongoDB, and the adaptor connects before anything else
import * as mongodb from '@openfn/language-mongodb';

export default [
  () => same(['insertDocuments', 'findDocuments', 'updateDocument'].map(name => typeof mongodb[name]), Array(3).fill('function')),
];

// In place of the adaptor's own, which would connect.
export const execute = (...operations) => async state => {
  for (const operation of operations) state = (await operation(state)) ?? state;
  return state;
};
