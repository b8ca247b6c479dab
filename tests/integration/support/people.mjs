/** Who may look at and control the sync, with `control: {roles: ['sync_operators']}`, and who may not. */

const READER = { username: 'reader', password: 'Reader-secret-1' };
export const OPERATOR = { username: 'operator', password: 'Operator-secret-1' };

/** Who asks, how, and what status the answer has. @type {[string, any, number][]} */
export const PEOPLE = [
	['nobody', false, 401],
	['the_admin_with_a_wrong_password', { username: 'admin', password: 'wrong' }, 401],
	['a_stranger', { username: 'stranger', password: 'password' }, 401],
	['a_user_with_another_role', READER, 403],
	['a_user_with_a_role_that_the_configuration_names', OPERATOR, 200],
	['the_super_user', true, 200],
];

/** Makes those that Harper has to know. @param {import('../../support/index.mjs').HarperNode} harper */
export async function addPeople(harper) {
	for (const [role, user] of /** @type {const} */ ([
		['sync_readers', READER],
		['sync_operators', OPERATOR],
	])) {
		await harper.operation({ operation: 'add_role', role, permission: { super_user: false } });
		await harper.operation({ operation: 'add_user', role, active: true, ...user });
	}
}
