# Debian packages, by `cpack -G DEB` in the build folder of a build with the prefix /usr.
set(package_of_library libpostcopy1)
set(package_of_development libpostcopy-dev)
set(package_of_daemon uffd-server)
set(folder ${PROJECT_SOURCE_DIR}/packaging/debian)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME libpostcopy)
set(CPACK_PACKAGE_VENDOR "the libpostcopy authors")
# Who builds packages for others says so, as for Debian's own tools; otherwise they are of this machine.
if(NOT CPACK_PACKAGE_CONTACT AND NOT "$ENV{DEBEMAIL}" STREQUAL "")
  set(CPACK_PACKAGE_CONTACT "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
elseif(NOT CPACK_PACKAGE_CONTACT)
  set(CPACK_PACKAGE_CONTACT "libpostcopy, built here <root@localhost>")
endif()
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_COMPONENTS_ALL ${components})
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_STRIP_FILES ON)
# Files go to where they are configured for, /etc among it, below a folder of cpack's own.
set(CPACK_SET_DESTDIR ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)

set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME ${package_of_library})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "instantaneous relocation of virtual machines (library)
libpostcopy hands a virtual machine's memory to the daemon that relocates it,
or fetches memory from a page server while it is being used.")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA
  ${folder}/library/shlibs ${folder}/library/triggers)

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME ${package_of_development})
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${package_of_library} (= ${PROJECT_VERSION})")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
"instantaneous relocation of virtual machines (development)
The header of the C interface, its C++ wrapper, and the files for pkg-config
and CMake.")

set(CPACK_DEBIAN_DAEMON_PACKAGE_NAME ${package_of_daemon})
set(CPACK_DEBIAN_DAEMON_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_DAEMON_PACKAGE_SUGGESTS "qemu-system-x86, bash-completion")
set(CPACK_COMPONENT_DAEMON_DESCRIPTION "instantaneous relocation of virtual machines (daemon)
Moves a running QEMU/KVM virtual machine to another host within milliseconds;
its memory follows while it runs, what it touches first.
.
This package has the daemon uffd-server, the command postcopyctl, and the
library that is preloaded into QEMU.")
set(CPACK_DEBIAN_DAEMON_PACKAGE_CONTROL_EXTRA
  ${folder}/daemon/conffiles ${folder}/daemon/postinst ${folder}/daemon/postrm
  ${folder}/daemon/prerm ${folder}/daemon/triggers)

foreach(component ${components})
  set(doc ${CMAKE_INSTALL_DATADIR}/doc/${package_of_${component}})
  install(FILES ${folder}/copyright DESTINATION ${doc} COMPONENT ${component})
  postcopy_compressed(${folder}/changelog.in changelog ${doc} ${component})
endforeach()
include(CPack)
