import js from '@eslint/js';
import globals from 'globals';

const harper = {
	Resource: 'readonly',
	createBlob: 'readonly',
	databases: 'readonly',
	logger: 'readonly',
	server: 'readonly',
	tables: 'readonly',
	transaction: 'readonly',
};

export default [
	{ ignores: ['coverage/', 'dist/', 'node_modules/', 'pkg/', 'target/', '**/vendor/'] },
	js.configs.recommended,
	{
		files: ['**/*.{js,mjs}'],
		languageOptions: { ecmaVersion: 2024, sourceType: 'module', globals: globals.nodeBuiltin },
		linterOptions: { reportUnusedDisableDirectives: 'error' },
		rules: {
			'curly': ['error', 'multi-line'],
			'default-case-last': 'error',
			'eqeqeq': 'error',
			'max-depth': ['error', 4],
			'max-lines': ['error', { max: 800 }],
			'max-lines-per-function': ['error', { max: 70 }],
			'no-else-return': 'error',
			'no-implicit-coercion': 'error',
			'no-param-reassign': 'error',
			'no-restricted-syntax': [
				'error',
				{ selector: 'ExportDefaultDeclaration', message: 'Export by name.' },
				{ selector: 'ForInStatement', message: 'Use for … of over Object.keys or Object.entries.' },
			],
			'no-return-assign': 'error',
			'no-self-compare': 'error',
			'no-template-curly-in-string': 'error',
			'no-throw-literal': 'error',
			'no-unused-expressions': 'error',
			'no-unused-vars': ['error', { argsIgnorePattern: '^_', caughtErrors: 'all' }],
			'no-useless-concat': 'error',
			'no-var': 'error',
			'object-shorthand': 'error',
			'prefer-const': 'error',
			'prefer-template': 'error',
			'require-atomic-updates': 'off',
		},
	},
	{ files: ['js/**', 'component/**', 'tests/**', 'scripts/bench/inside/**'], languageOptions: { globals: harper } },
	{ files: ['js/**'], rules: { 'no-console': 'error' } },
	// A suite's describe() holds all of its tests.
	{ files: ['tests/**'], rules: { 'max-lines-per-function': 'off' } },
	// ESLint and node:test take a default export only.
	{ files: ['*.config.js', 'scripts/test/reporter.mjs'], rules: { 'no-restricted-syntax': 'off' } },
];
