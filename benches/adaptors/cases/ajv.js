// package: npm:ajv@8
// behind: common, ghana-nia
// does: checks by generated code: references, formats of its own, defaults, all errors, an asynchronous schema
import Ajv from 'ajv';

const Validator = Ajv.default ?? Ajv;

export default [
  async () => {
    const ajv = new Validator({ allErrors: true, useDefaults: true });
    ajv.addFormat('village', /^[A-Z][a-z]+$/);
    ajv.addSchema({ $id: 'age', type: 'integer', minimum: 0 });
    const check = ajv.compile({
      type: 'object',
      properties: { age: { $ref: 'age' }, home: { type: 'string', format: 'village' }, sex: { enum: ['f', 'm'], default: 'f' } },
      required: ['age'],
      additionalProperties: false,
    });
    const patient = { age: 31, home: 'Accra' };
    same([check(patient), patient.sex], [true, 'f']);
    same([check({ age: -1, home: 'x', other: 1 }), check.errors.map(error => error.keyword).sort()], [false, ['additionalProperties', 'format', 'minimum']]);
    ajv.addKeyword({ keyword: 'known', async: true, type: 'number', validate: async (_, n) => n === 1 });
    const checkLater = ajv.compile({ $async: true, known: true });
    same(await checkLater(1), 1);
    same((await failure(() => checkLater(2))).errors[0].keyword, 'known');
  },
];
