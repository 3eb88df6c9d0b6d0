# The flags of every target, said once, and the functions that make a layer or a test of a list.
find_package(Threads REQUIRED)

set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)

add_library(postcopy_flags INTERFACE)
target_compile_features(postcopy_flags INTERFACE cxx_std_20)
target_compile_definitions(postcopy_flags INTERFACE _GNU_SOURCE)
target_compile_options(postcopy_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror>
  $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wthread-safety>)
target_link_libraries(postcopy_flags INTERFACE Threads::Threads)
if(POSTCOPY_SANITIZE)
  # null: the address sanitizer stops at it anyway; vptr, alignment: cost half of the compile time,
  # and nothing here casts between classes or reads fields through a cast pointer. function: only
  # clang's, and only in what clang++ links.
  target_compile_options(postcopy_flags INTERFACE
    -fsanitize=${POSTCOPY_SANITIZE} -fno-sanitize=null,vptr,alignment
    $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-fno-sanitize=function>
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(postcopy_flags INTERFACE -fsanitize=${POSTCOPY_SANITIZE})
endif()

# postcopy_layer(<name> SOURCES <file>... USES <target>...): a static, position-independent library
# whose headers are included by their path from libpostcopy/ or uffd-server/.
function(postcopy_layer name)
  cmake_parse_arguments(PARSE_ARGV 1 layer "" "" "SOURCES;USES")
  add_library(${name} STATIC ${layer_SOURCES})
  target_link_libraries(${name} PUBLIC postcopy_flags ${layer_USES})
  target_include_directories(${name} PUBLIC
    ${PROJECT_SOURCE_DIR}/libpostcopy ${PROJECT_SOURCE_DIR}/libpostcopy/include
    ${PROJECT_SOURCE_DIR}/uffd-server)
endfunction()

# postcopy_targets_below(<folder> <variable>): the libraries and programs that a folder and those below
# it build.
function(postcopy_targets_below folder variable)
  get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
  get_property(folders DIRECTORY ${folder} PROPERTY SUBDIRECTORIES)
  set(found)
  foreach(target ${targets})
    get_target_property(type ${target} TYPE)
    if(type MATCHES "LIBRARY|EXECUTABLE" AND NOT type STREQUAL "INTERFACE_LIBRARY")
      list(APPEND found ${target})
    endif()
  endforeach()
  foreach(below ${folders})
    postcopy_targets_below(${below} more)
    list(APPEND found ${more})
  endforeach()
  set(${variable} ${found} PARENT_SCOPE)
endfunction()

# postcopy_hide_all_but(<shared library> <version script>): what is loaded into somebody else's process
# shows the symbols of the script only, brings its C++ library along, and is never unloaded.
function(postcopy_hide_all_but target script)
  target_link_options(${target} PRIVATE
    -Wl,--version-script=${script} -Wl,--exclude-libs,ALL -Wl,--as-needed -Wl,-z,nodelete,-z,now)
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${script})
  if(NOT POSTCOPY_SANITIZE)
    target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc -Wl,--no-undefined)
  endif()
endfunction()

# What a test under ThreadSanitizer needs besides: it knows nothing of Debian's absl::Mutex.
add_library(postcopy_sanitized_tests INTERFACE)
if(POSTCOPY_SANITIZE MATCHES "thread" AND POSTCOPY_BUILD_DAEMON)
  add_library(tsan_absl_mutex OBJECT ${PROJECT_SOURCE_DIR}/tests/tsan_absl_mutex.cc)
  find_package(absl REQUIRED)
  target_link_libraries(tsan_absl_mutex PUBLIC postcopy_flags absl::synchronization)
  target_link_libraries(postcopy_sanitized_tests INTERFACE
    tsan_absl_mutex $<TARGET_OBJECTS:tsan_absl_mutex>)
  set(absl_mutex _ZN4absl7debian35Mutex)
  target_link_options(postcopy_sanitized_tests INTERFACE
    -Wl,--wrap=${absl_mutex}4LockEv -Wl,--wrap=${absl_mutex}6UnlockEv
    -Wl,--wrap=${absl_mutex}5AwaitERKNS0_9ConditionE
    -Wl,--wrap=${absl_mutex}16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE)
endif()

# GoogleTest's headers take longer to parse than most tests: parsed once, here, for all of them.
if(POSTCOPY_BUILD_TESTS)
  find_package(GTest REQUIRED)
  add_library(postcopy_test_flags INTERFACE)
  # A test is compiled more often than it is run. -pthread: what some of them get from gRPC.
  target_compile_options(postcopy_test_flags INTERFACE -pthread $<$<CONFIG:RelWithDebInfo>:-O0>)
  target_link_libraries(postcopy_test_flags INTERFACE postcopy_flags GTest::gmock GTest::gtest_main)
  add_executable(postcopy_test_prelude ${PROJECT_SOURCE_DIR}/tests/prelude.cc)
  target_link_libraries(postcopy_test_prelude PRIVATE postcopy_test_flags)
  target_precompile_headers(postcopy_test_prelude PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
endif()

# Builds every test with the label `unit`.
add_custom_target(unit-tests)

# postcopy_test(<file>_test.cc USES <target>... [LABELS <label>...]): one GoogleTest program, named
# after its path under tests/. The label `unit` is the default.
#
# A sanitizer needs everything it watches to be instrumented, which gRPC is not: there only unit
# tests outside of control/ are run, and without config/, relocation/ and vmm/, which take as long to
# build as all else together; the rest is built by name only. Skipped cases are counted by
# tests/sum_up.py, not here: one skipped case must not hide another that fails.
function(postcopy_test file)
  cmake_parse_arguments(PARSE_ARGV 1 test "" "" "USES;LABELS")
  if(NOT test_LABELS)
    set(test_LABELS unit)
  endif()
  cmake_path(RELATIVE_PATH CMAKE_CURRENT_SOURCE_DIR BASE_DIRECTORY ${PROJECT_SOURCE_DIR}/tests
             OUTPUT_VARIABLE folder)
  string(REGEX REPLACE "\\.cc$" "" stem ${file})
  string(REPLACE "/" "_" name ${folder}_${stem})
  add_executable(${name} ${file})
  target_link_libraries(${name} PRIVATE
    postcopy_test_flags ${test_USES} postcopy_sanitized_tests)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_precompile_headers(${name} REUSE_FROM postcopy_test_prelude)
  set_property(GLOBAL APPEND PROPERTY POSTCOPY_TEST_FILES ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  if(POSTCOPY_SANITIZE AND (NOT "unit" IN_LIST test_LABELS OR folder MATCHES "^(config|control|relocation|vmm)$"))
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
    return()
  endif()
  add_test(NAME ${folder}/${stem} COMMAND ${name})
  # A sanitizer makes a test up to ten times as slow.
  set(timeout 120)
  if(POSTCOPY_SANITIZE)
    set(timeout 400)
  endif()
  set_tests_properties(${folder}/${stem} PROPERTIES LABELS "${test_LABELS}" TIMEOUT ${timeout})
  if("unit" IN_LIST test_LABELS)
    add_dependencies(unit-tests ${name})
  endif()
endfunction()
