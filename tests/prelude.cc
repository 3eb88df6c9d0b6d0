// Nothing: its target exists for the precompiled headers that every test uses.
int main() { return 0; }
