-- The memory shared with the shim and the driver; laid out as in native/shim.c and memory.py.
return function(insecure)
	local ffi = insecure.require("ffi")
	ffi.cdef([[
		struct oneiros_luanti {
			int32_t keys, turn_x, turn_y, command, phase, width, height, frames;
			int32_t request, request_bytes, answer, answer_bytes, settling, map_packets, capacity, seed;
			int32_t unused[48];
			double state[32];
			int32_t unused_too[128];
			int32_t inventory[512];
			char unused_three[1024];
			char request_text[8192];
			char answer_text[49152];
		};
		void* oneiros_luanti_memory(void);
	]])
	assert(ffi.offsetof("struct oneiros_luanti", "inventory") == 1024)
	assert(ffi.offsetof("struct oneiros_luanti", "request_text") == 4096)
	local memory = ffi.cast("struct oneiros_luanti*", ffi.C.oneiros_luanti_memory())
	local bridge = {shared = memory}

	function bridge.request()
		return ffi.string(memory.request_text, memory.request_bytes)
	end

	function bridge.answer(text)
		assert(#text <= 49152, "the answer is too long")
		ffi.copy(memory.answer_text, text, #text)
		memory.answer_bytes = #text
		memory.answer = memory.request
	end

	return bridge
end
