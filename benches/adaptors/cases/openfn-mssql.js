// package: @openfn/language-mssql@7.1.3
// does: every operation is there
// only loads: Debian has no Microsoft SQL Server, and the adaptor connects before anything else
import * as mssql from '@openfn/language-mssql';

export default [
  () => same(['sql', 'insert', 'upsert', 'upsertMany', 'describeTable'].map(name => typeof mssql[name]), Array(5).fill('function')),
];

// In place of the adaptor's own, which would connect.
export const execute = (...operations) => async state => {
  for (const operation of operations) state = (await operation(state)) ?? state;
  return state;
};
