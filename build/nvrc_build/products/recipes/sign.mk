# SPDX-License-Identifier: Apache-2.0
# Signs modules with a key that exists only in the sandbox's own /tmp, in memory, for the time of one run.
# Variables: SIGN_FILE (of the kernel's headers), MODULES (paths).

KEY := /tmp/signing.key
CERT := /out/signing.x509

sign: $(CERT)
	@for module in $(MODULES); do $(SIGN_FILE) sha512 $(KEY) $(CERT) "$$module" || exit 1; done
	@rm -f $(KEY)

$(CERT):
	@openssl req -quiet -new -x509 -newkey rsa:4096 -noenc -sha512 -days 36500 -subj "/CN=nvrc image module signing" \
	    -addext keyUsage=digitalSignature -outform DER -keyout $(KEY) -out $@

.PHONY: sign
