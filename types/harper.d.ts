/** What Harper offers as globals, as far as this component uses it. Harper publishes no types for them. */

/** A request's or transaction's context; an empty object starts a new one. */
interface HarperContext {
	user?: HarperUser;
	timestamp?: number;
	[key: string]: unknown;
}

interface HarperUser {
	username?: string;
	role?: { role?: string; permission?: { super_user?: boolean; [key: string]: unknown } };
}

type HarperRecord = Record<string, any>;

interface HarperCondition {
	attribute: string | string[];
	comparator?: string;
	value: unknown;
}

interface HarperQuery {
	conditions?: HarperCondition[];
	operator?: 'and' | 'or';
	select?: string[] | string;
	sort?: { attribute: string; descending?: boolean };
	limit?: number;
	offset?: number;
	[key: string]: unknown;
}

interface HarperSubscription extends AsyncIterable<any> {
	on(event: 'data' | 'error' | 'close', listener: (event: any) => void): this;
	end?(): void;
	return?(): Promise<unknown>;
}

interface HarperTable {
	new (...parameters: any[]): any;
	readonly tableName: string;
	readonly databaseName: string;
	readonly primaryKey: string;
	readonly attributes: { name: string; type?: string; indexed?: boolean; isPrimaryKey?: boolean; [key: string]: any }[];
	readonly primaryStore: any;
	get(id: unknown, context?: HarperContext): any;
	get(query: HarperQuery, context?: HarperContext): any;
	put(record: HarperRecord, context?: HarperContext): any;
	put(id: unknown, record: HarperRecord, context?: HarperContext): any;
	patch(id: unknown, record: HarperRecord, context?: HarperContext): any;
	delete(id: unknown, context?: HarperContext): any;
	search(query: HarperQuery, context?: HarperContext): AsyncIterable<any> & Iterable<any>;
	subscribe(options?: HarperRecord, context?: HarperContext): Promise<HarperSubscription>;
	getRecordCount?(options?: { exactCount?: boolean }): Promise<{ recordCount: number; estimatedRange?: number[] }>;
	[key: string]: any;
}

interface HarperLogger {
	trace?(...message: unknown[]): void;
	debug?(...message: unknown[]): void;
	info?(...message: unknown[]): void;
	warn?(...message: unknown[]): void;
	error?(...message: unknown[]): void;
	fatal?(...message: unknown[]): void;
	notify?(...message: unknown[]): void;
}

interface HarperServer {
	readonly hostname: string;
	readonly workerIndex?: number;
	readonly workerCount?: number;
	readonly nodes?: { name: string; [key: string]: any }[];
	readonly resources: Map<string, any> & { [key: string]: any };
	operation(operation: HarperRecord, context?: HarperContext, authorize?: boolean): Promise<any>;
	http?(listener: (request: any, next: (request: any) => any) => any, options?: HarperRecord): unknown;
	getUser?(username: string, password?: string | null): Promise<HarperUser | undefined>;
	[key: string]: any;
}

/** What handleApplication receives. `pluginName` is Harper 4, `name` Harper 5. */
interface HarperScope {
	readonly pluginName?: string;
	readonly name?: string;
	readonly directory: string;
	readonly logger: HarperLogger;
	readonly server: HarperServer;
	readonly resources: Map<string, any> & { [key: string]: any };
	readonly options: {
		get(path: string[]): any;
		getAll(): any;
		getRoot(): any;
		on(event: 'change', listener: (path: string[], value: any, config: any) => void): unknown;
		on(event: 'ready' | 'close' | 'remove', listener: () => void): unknown;
		on(event: 'error', listener: (error: Error) => void): unknown;
		[key: string]: any;
	};
	on(event: 'close' | 'ready' | 'error', listener: (...parameters: any[]) => void): unknown;
	once(event: 'close' | 'ready' | 'error', listener: (...parameters: any[]) => void): unknown;
	requestRestart?(): void;
	close?(): void;
	[key: string]: any;
}

declare const databases: Record<string, Record<string, HarperTable>>;
declare const logger: HarperLogger;
declare const server: HarperServer;
declare const tables: Record<string, HarperTable>;

declare function createBlob(source: unknown, options?: HarperRecord): any;
declare function transaction<T>(context: HarperContext, work: (transaction: any) => T): Promise<Awaited<T>>;
declare function transaction<T>(work: (transaction: any) => T): Promise<Awaited<T>>;

declare class Resource {
	static loadAsInstance?: boolean;
	static [key: string]: any;
	constructor(...parameters: any[]);
	getId(): any;
	getContext(): HarperContext & { [key: string]: any };
	[key: string]: any;
}
