/** What Node.js has of WebAssembly; TypeScript declares it for browsers only. */
declare namespace WebAssembly {
	class Module {
		private constructor();
	}
	class RuntimeError extends Error {}
	function compile(bytes: Uint8Array): Promise<Module>;
}
