# What is tested by programs that are not built: Python tests of the tree, of the lab and over whole
# VMs; and a build target that compiles each header alone.
find_package(Python3 REQUIRED COMPONENTS Interpreter)

function(postcopy_program_test name)
  cmake_parse_arguments(PARSE_ARGV 1 test "" "LABEL;TIMEOUT;QEMU" "COMMAND")
  add_test(NAME ${name} COMMAND ${test_COMMAND} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}/tests)
  set_tests_properties(${name} PROPERTIES
    LABELS ${test_LABEL} TIMEOUT ${test_TIMEOUT} SKIP_RETURN_CODE 77
    ENVIRONMENT "POSTCOPY_BUILD_DIR=${PROJECT_BINARY_DIR};PYTHONDONTWRITEBYTECODE=1;\
POSTCOPY_LOAD_CLIENT=${PROJECT_BINARY_DIR}/bin/lab-load-client;\
POSTCOPY_LAB_RELAY=${PROJECT_BINARY_DIR}/bin/lab-relay;POSTCOPY_LAB_QEMU=${test_QEMU}")
endfunction()

postcopy_program_test(layering LABEL unit TIMEOUT 60
  COMMAND Python3::Interpreter layering_test.py)
postcopy_program_test(docs LABEL unit TIMEOUT 60
  COMMAND Python3::Interpreter docs_test.py)
foreach(name report process_figures)
  postcopy_program_test(perf/${name}_test LABEL unit TIMEOUT 60
    COMMAND Python3::Interpreter perf/${name}_test.py)
endforeach()
foreach(name schedule record)
  postcopy_program_test(torture/${name}_test LABEL unit TIMEOUT 60
    COMMAND Python3::Interpreter torture/${name}_test.py)
endforeach()
postcopy_program_test(guests/table_test LABEL unit TIMEOUT 60
  COMMAND Python3::Interpreter guests/table_test.py)
# Compiles a checker for each variant of the model, two at a time.
postcopy_program_test(model/model_test LABEL unit TIMEOUT 300
  COMMAND Python3::Interpreter model/model_test.py)
set_tests_properties(model/model_test PROPERTIES PROCESSORS 2)
postcopy_program_test(lab LABEL unit TIMEOUT 120
  COMMAND Python3::Interpreter -m unittest discover -s lab -p "*_test.py" -t .)

# What users see besides the programs: manual, completion, service; what is installed, and packages.
foreach(name completion manual service)
  postcopy_program_test(package/${name}_test LABEL process TIMEOUT 60
    COMMAND Python3::Interpreter package/${name}_test.py)
endforeach()
# With the Python of Debian's python3-jsonschema.
postcopy_program_test(package/json_test LABEL process TIMEOUT 60
  COMMAND /usr/bin/python3 package/json_test.py)
foreach(name debian install)
  postcopy_program_test(package/${name}_test LABEL package TIMEOUT 1800
    COMMAND Python3::Interpreter package/${name}_test.py)
endforeach()

# Each of these relocates VMs, in namespaces of its own. Exit code 77: skipped.
file(GLOB vm_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/vm/*_test.py)
list(FILTER vm_tests EXCLUDE REGEX "/nested_test")
set(wide_tests activity_test memory_shapes_test)
# CI plays what is not marked support.long_run in these, the label vm-long the rest.
set(split_tests killed_daemon_test one_owner_test rollback_test source_lost_test)
foreach(file ${vm_tests})
  cmake_path(GET file STEM name)
  set(label vm)
  if(name IN_LIST wide_tests)
    set(label wide)
  endif()
  set(part)
  if(name IN_LIST split_tests)
    set(part vm)
    postcopy_program_test(vm/${name}-long LABEL vm-long TIMEOUT 900
      COMMAND Python3::Interpreter ${file} vm-long)
  endif()
  postcopy_program_test(vm/${name} LABEL ${label} TIMEOUT 900
    COMMAND Python3::Interpreter ${file} ${part})
  postcopy_program_test(matrix/${name}-10.0 LABEL matrix TIMEOUT 900 QEMU 10.0
    COMMAND Python3::Interpreter ${file})
endforeach()
postcopy_program_test(matrix/every_byte_test-7.2-to-10.0 LABEL matrix TIMEOUT 900 QEMU 7.2:10.0
  COMMAND Python3::Interpreter ${CMAKE_CURRENT_SOURCE_DIR}/vm/every_byte_test.py)
# Guests with disks and devices, by the table tests/guests/table.py: a few in CI, all others every night.
foreach(name guests run_states)
  set(command COMMAND Python3::Interpreter guests/${name}_test.py)
  postcopy_program_test(guests/${name}-ci LABEL vm TIMEOUT 900 ${command} vm)
  postcopy_program_test(guests/${name} LABEL guests TIMEOUT 3600 ${command} guests)
  postcopy_program_test(guests/${name}-10.0 LABEL guests TIMEOUT 3600 QEMU 10.0 ${command})
endforeach()
# On Debian 12's own kernel, in a machine under TCG: slow.
postcopy_program_test(vm/nested_test LABEL nested TIMEOUT 1500
  COMMAND Python3::Interpreter ${CMAKE_CURRENT_SOURCE_DIR}/vm/nested_test.py)
# The same with a hook and daemons that were built with AddressSanitizer and UndefinedBehaviorSanitizer.
postcopy_program_test(sanitized/hops_test LABEL sanitized TIMEOUT 900
  COMMAND ${CMAKE_COMMAND} -E env POSTCOPY_BUILD_DIR=${PROJECT_SOURCE_DIR}/build/asan POSTCOPY_HOPS=3
    ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/vm/hops_test.py)
# A VM that hops to and fro for so long under faults that follow from the seed.
set(torture_seconds 120)
set(torture_seed 7)
math(EXPR torture_timeout "${torture_seconds} + 420")
postcopy_program_test(torture/torture LABEL torture TIMEOUT ${torture_timeout}
  COMMAND Python3::Interpreter torture/torture.py --seconds ${torture_seconds} --seed ${torture_seed})
# CI hops ten times, the label vm-long as often as it is written.
set_property(TEST vm/hops_test APPEND PROPERTY ENVIRONMENT POSTCOPY_HOPS=10)
postcopy_program_test(vm/hops_test-long LABEL vm-long TIMEOUT 900
  COMMAND Python3::Interpreter ${CMAKE_CURRENT_SOURCE_DIR}/vm/hops_test.py)
# Want the machine for themselves: they fault faster than the bulk arrives.
set_tests_properties(vm/every_byte_test vm/hops_test vm/hops_test-long matrix/every_byte_test-10.0
  matrix/hops_test-10.0 sanitized/hops_test matrix/every_byte_test-7.2-to-10.0 torture/torture
  PROPERTIES RUN_SERIAL ON)
# The longest: begun first.
set_tests_properties(vm/rollback_test-long PROPERTIES COST 200)
set_tests_properties(vm/source_lost_test vm/several_vms_test vm/destination_vmm_test guests/guests-ci
  vm/one_owner_test-long PROPERTIES COST 100)

# Target `headers`: each header compiles alone. One file a header, written here; nothing is linked.
# Where there is an x.cc it is what shows that x.h does, since it includes it first (layering_test.py).
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
     ${PROJECT_SOURCE_DIR}/libpostcopy/*.h ${PROJECT_SOURCE_DIR}/libpostcopy/*.hpp)
if(POSTCOPY_BUILD_DAEMON)
  file(GLOB_RECURSE daemon_headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
       ${PROJECT_SOURCE_DIR}/uffd-server/*.h)
  list(APPEND headers ${daemon_headers})
endif()
foreach(header ${headers})
  string(REGEX REPLACE "\\.h$" ".cc" twin ${header})
  if(twin MATCHES "\\.cc$" AND EXISTS ${PROJECT_SOURCE_DIR}/${twin})
    continue()
  endif()
  set(alone ${CMAKE_CURRENT_BINARY_DIR}/headers/${header}.cc)
  string(REGEX REPLACE "^(libpostcopy/include|libpostcopy|uffd-server)/" "" path ${header})
  file(CONFIGURE OUTPUT ${alone} CONTENT "#include \"${path}\"\n#include \"${path}\"\n")
  list(APPEND alone_files ${alone})
endforeach()
add_library(headers OBJECT EXCLUDE_FROM_ALL ${alone_files})
set_target_properties(headers PROPERTIES UNITY_BUILD OFF)
target_compile_options(headers PRIVATE -O0 -g0)
target_link_libraries(headers PRIVATE postcopy_flags postcopy_engine postcopy_attach)
foreach(layer uffd_relocation uffd_control uffd_vmm uffd_server_core)
  if(TARGET ${layer})
    target_link_libraries(headers PRIVATE ${layer})
  endif()
endforeach()
