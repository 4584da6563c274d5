// A library in C++ that is opened with RTLD_DEEPBIND.
#include <cstddef>
#include <vector>

extern "C" std::size_t plugin_vector(std::size_t size) { return std::vector<char>(size).size(); }
