# tests.mk: every test target.
